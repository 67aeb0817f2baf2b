"""What ``ggen policy`` and ``ggen sync`` do: versions changed, and shown."""
