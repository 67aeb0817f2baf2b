"""What tests wait with: the same loop as commands."""

from adapters.local.waiting import until

__all__ = ["until"]
