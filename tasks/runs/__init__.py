"""The life of a run: one recipe carried out, journalled, undone where it fails. Start at ``step.py``."""
