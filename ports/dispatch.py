"""Which action is carried out next: a list for each tenant, taken from in turns: a part of Memory.

Lists are kept apart by hard limit, so that one message may serve many actions of one limit.
Documents have the truth: the reaper's look finds an action whose id was lost here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ports.slots import Slot


@dataclass(frozen=True, slots=True)
class Waiting:
    """An accepted action that waits for a worker; ``weight`` is its tenant's share of turns."""

    slot: Slot
    handler: str
    limit_ms: int
    accepted_us: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """The action whose turn it is, if one waits and may begin.

    ``rings``: others wait as well, and the caller is to call one more process.
    """

    slot: Slot | None
    rings: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """How many actions of a tenant wait, and for how long the oldest of them has."""

    account_id: str
    depth: int
    oldest_s: float


class Dispatch(Protocol):
    """Lists of waiting actions, and who is called to serve them.

    A process is called by a message. Where the answer says so the caller sends it, and no other
    caller is asked to until that process has come, or a second has passed.
    """

    def enqueue(self, waiting: Waiting) -> bool:
        """Add an action to its tenant's list, once; whether to call a process."""
        ...

    def take(
        self,
        limit_ms: int,
        server: str,
        *,
        is_first: bool = False,
        ended: tuple[str, float] | None = None,
    ) -> Turn:
        """Take the action whose turn it is: the next tenant's, and of that the oldest.

        Args:
            limit_ms: of which lists.
            server: the process that asks; it counts as serving until it leaves, or its time is up.
            is_first: whether it has just come, having been called.
            ended: the handler of the action before, and how many milliseconds that took. While
                handlers are short few processes serve, and all there are where they wait.
        """
        ...

    def leave(self, limit_ms: int, server: str) -> bool:
        """Serve no longer; whether to call a process."""
        ...

    def unserved(self) -> Sequence[int]:
        """The limits of lists from which no process takes; the caller is to call one for each."""
        ...

    def queues(self, limit: int) -> tuple[int, list[Queue]]:
        """How many actions wait in all, and the longest lists, longest first."""
        ...
