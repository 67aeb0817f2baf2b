"""How fast, on this machine, against the bars; never a timed test."""
