"""The life of a run: carried out step by step, or undone. Start reading at ``step.py``."""
