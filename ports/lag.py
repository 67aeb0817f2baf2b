"""Lag: how much of a tenant's topic waits to be delivered (D25)."""

from datetime import datetime
from typing import Protocol


class Lag(Protocol):
    """Reads a metric; never a store of record."""

    def undelivered(self, subscription_id: str) -> tuple[int, datetime]:
        """Messages not yet acknowledged, and as of when: up to four minutes ago.

        Raises:
            OutageError: the number is unknown just now.
        """
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...
