"""The load of each entitlement, counted as signals are admitted and end: a part of Memory.

A count begins again at 0 where Memory was lost, or where nothing was asked for an hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Load:
    """Counts of one entitlement, and how many of its actions are in flight.

    ``refused``: for concurrency. ``pushed_back``: of these, messages of its account's topic.
    ``held_ms``: for how long the ``ended`` ones held their places, together.
    """

    admitted: int = 0
    refused: int = 0
    pushed_back: int = 0
    ended: int = 0
    timed_out: int = 0
    held_ms: int = 0
    in_flight: int = 0


class Loads(Protocol):
    """Counts and samples, and which entitlements are to be looked at."""

    def press(self, account_id: str, entitlement_id: str) -> None:
        """Have an entitlement looked at. A refusal for concurrency does that by itself."""
        ...

    def pressed(self, limit: int) -> Sequence[tuple[str, str]]:
        """Account and entitlement of those to be looked at, the longest not seen first."""
        ...

    def any_pressed(self) -> bool:
        """Whether one is to be looked at."""
        ...

    def looked_at(self, account_id: str, entitlement_id: str) -> None:
        """It is looked at now: all others that are pressed come first next time."""
        ...

    def rest(self, account_id: str, entitlement_id: str) -> None:
        """Have it looked at no more, until it is pressed again."""
        ...

    def load(self, account_id: str, entitlement_id: str) -> Load:
        """Its counts, as of now."""
        ...

    def pushed_back(self, account_id: str) -> int:
        """Messages of a topic that were refused for concurrency in the last two minutes.

        Those that were admitted since are not counted. Messages that were never pushed are unknown.
        """
        ...

    def note_sample(self, account_id: str, entitlement_id: str, sample: str, kept: int) -> None:
        """Keep a sample, and so many of those before."""
        ...

    def samples(self, account_id: str, entitlement_id: str) -> Sequence[str]:
        """The samples that are kept, oldest first."""
        ...

    def busy(self) -> int:
        """How many processes carry out an action now."""
        ...
