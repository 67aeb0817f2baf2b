"""What each command prints with ``--json``: a type, and by it a JSON Schema."""
