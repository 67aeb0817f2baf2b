"""The seven runbooks: what each does, step by step; no mechanism."""
