"""The life of a receipt after its commit: sealed, signed, audited, archived."""
