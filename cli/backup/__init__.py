"""Copies of the embedded stores, and their way back: ``ggen backup``, ``ggen restore``."""
