"""Bytes of strangers: every parser that takes them, fed with valid input that was broken at random."""
