"""What receipts measure, counted as they are sealed: a part of Memory that metrics are read from.

The record is the truth. These counts begin at 0 after a loss of Memory, as a counter that was
reset, and a process that dies between a seal and its count leaves that seal out.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Measures(Protocol):
    """Counters by name."""

    def measure(self, counts: Mapping[str, int]) -> None:
        """Add to these counters, in one step."""
        ...

    def measured(self) -> Mapping[str, int]:
        """Every counter."""
        ...

    def note_states(self, states: Mapping[str, int]) -> None:
        """How many actions and runs are in each state that does not last, as a scan found."""
        ...

    def note_ended(self, receipts: Sequence[str]) -> None:
        """Receipts (``account id``) whose traces are due; the newest 100,000 are kept."""
        ...

    def ended(self, limit: int) -> list[str]:
        """The first of them, oldest first."""
        ...

    def forget_ended(self, receipts: Sequence[str]) -> None:
        """These are exported."""
        ...

    def states(self) -> Mapping[str, int]:
        """What the last scan found."""
        ...
