"""Stores on this machine: SQLite, a directory, files of keys and secrets."""
