"""The supervised stack that ``ggen up`` starts: its files, programs and supervisor."""
