"""The life of an action: admitted, executed, undone, never lost sight of. Start at ``execute.py``."""
