"""The doors: each module serves one group of paths, and knows no other."""
