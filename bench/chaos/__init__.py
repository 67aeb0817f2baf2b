"""Faults of a running stack: processes killed, stores taken away."""
