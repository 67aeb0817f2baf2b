"""Proves. Bytes in, hashes and signatures out; no I/O, no clock, no randomness."""
