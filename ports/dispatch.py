"""Which action is carried out next: a list for each tenant, taken from in turns: a part of Memory.

Lists are kept apart by hard limit, so that one message may serve many actions of one limit.
Documents have the truth: the reaper's look finds an action whose id was lost here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from governor.records import ProcessClaim
from ports.slots import Slot


@dataclass(frozen=True, slots=True)
class Waiting:
    """An accepted action that waits for a worker; ``weight`` is its tenant's share of turns.

    ``handler`` is a name by which it is known how long such actions take. ``now_us`` is what the
    clock said that ``accepted_us`` is of, when it was put here: Memory's may be another.
    """

    slot: Slot
    handler: str
    limit_ms: int
    accepted_us: int
    now_us: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    """How many processes are to be called, each by a message that has the round's number."""

    count: int = 0
    round: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """The action whose turn it is, if one waits and may begin.

    ``call``: others wait as well. ``is_short``: its handler takes a few milliseconds, as far as is
    known. ``stays``: none waits, and the process is to ``wait`` for a moment.
    """

    slot: Slot | None
    call: Call = Call()
    is_short: bool = False
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """How many actions of a tenant wait, and for how long the oldest of them has."""

    account_id: str
    depth: int
    oldest_s: float


class Dispatch(Protocol):
    """Lists of waiting actions, and who is called to serve them.

    A process is called by a message. The answer says how many messages the caller is to send. Where
    none of them has come after a second another round begins, and those of the former do nothing.
    """

    def enqueue(self, waiting: Sequence[Waiting]) -> list[Call]:
        """Add each action to its tenant's list, once; which processes to call for each."""
        ...

    def take(
        self,
        limit_ms: int,
        server: str,
        claim: ProcessClaim,
        *,
        called_in: int | None = None,
        ended: tuple[str, float] | None = None,
        stays_ms: int = 0,
    ) -> Turn:
        """Take the action whose turn it is, and begin it (``Slots.begin``).

        It is the next tenant's, and of that the oldest. Nothing is taken while nothing may begin.
        A process that gets nothing does not count as serving any more. Where the answer is lost
        an action was taken that no process carries out: the reaper looks at it after two seconds.

        Args:
            limit_ms: of which lists.
            server: the process that asks; while its handler is a short one it counts as serving
                until it leaves, or its time is up. For one at a slow handler another is called.
            claim: that process's; the reaper looks at the action if the process dies.
            called_in: the round in which it was called, the first time it asks.
            stays_ms: for how long the process will ``wait`` where no action does; one does at most.
            ended: the handler of the action before, and how many milliseconds that took. While
                handlers are short few processes serve, and all there are where they wait.
        """
        ...

    def wait(self, limit_ms: int, server: str, within_ms: int) -> None:
        """Wait until an action is put into a list that is not served; then take, in any case.

        It is put so without a message. Were this process dead, the action would wait for another
        one, or for the reaper, as one whose message is lost.
        """
        ...

    def leave(self, limit_ms: int, server: str, ended: tuple[str, float] | None) -> Call:
        """Serve no longer, though there may be more; which processes to call."""
        ...

    def unserved(self) -> Sequence[tuple[int, Call]]:
        """The limits of lists from which no process takes, and which processes to call."""
        ...

    def depth(self, account_id: str) -> int:
        """How many actions of a tenant wait."""
        ...

    def queues(self, limit: int) -> tuple[int, list[Queue]]:
        """How many actions wait in all, and the longest lists, longest first."""
        ...
