"""Decides. No I/O, no clock, no randomness, no logging: values in, values out."""
