"""The life of an action: admitted, executed, undone. Start reading at ``execute.py``."""
