"""Archives of ledgers: written, judged, kept in their bucket, and cut into segments."""
