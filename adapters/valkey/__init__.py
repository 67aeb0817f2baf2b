"""Valkey (or Redis): Memory, and the embedded signals."""
