"""The measurements: each a function from a running stack to figures."""
