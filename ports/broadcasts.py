"""The versions in force, announced to every process, and the answer of each: a part of Memory.

Documents have the truth. Here lies its copy, with the moment when Documents were asked for it last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from governor.records import ProcessClaim


@dataclass(frozen=True, slots=True)
class InForce:
    """The version in force for one plan (``sku~plan``), by its number and by its digest."""

    plan: str
    version: str
    digest: str
    since: str = ""
    """When it came into force (RFC 3339); empty for the first version of a plan."""
    is_watched: bool = False
    """Whether it, or one that some governors try first, is still to be judged."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process says to a version: it can use it, or why not."""

    plan: str
    version: str
    digest: str
    outcome: Literal["ack", "nack"]
    at: str
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Listening:
    """One process that hears of versions, and when it was heard of last, by Memory's clock.

    ``confirmed_s`` is the age of what it knew then: how long before Documents had said so.
    ``children``: how many processes it has to carry out work.
    """

    role: str
    claim: ProcessClaim
    answers: tuple[Answer, ...]
    confirmed_s: float | None = None
    ago_s: float = 0.0
    children: int = 0

    @property
    def name(self) -> str:
        """What tells it from every other process."""
        return f"{self.claim.host}/{self.claim.pid}/{self.claim.process_started}"


class Broadcasts(Protocol):
    """Versions announced to every process."""

    def broadcast(self, versions: Sequence[InForce], *, is_all: bool = False) -> None:
        """Tell every process of these versions; a lower version than is known changes nothing.

        ``is_all``: they are all that Documents have, read just now. Then a lower one is believed
        where the known one has not changed for half a minute: Documents were restored.
        """
        ...

    def in_force(self) -> tuple[list[InForce], float | None]:
        """The versions announced, and how many seconds ago Documents were asked; None: not yet."""
        ...

    def answer(self, listening: Listening) -> None:
        """Note what a process says, in place of what it said before."""
        ...

    def answers(self) -> list[Listening]:
        """Every process that has said anything and was not forgotten, by role."""
        ...

    def forget_listening(self, name: str) -> None:
        """Forget a process that has ended."""
        ...


class Hearing(Protocol):
    """The listening half, for a thread of its own."""

    def hear(self, every_s: float) -> Iterator[None]:
        """Yields once it listens, at each announcement, and after ``every_s`` without any.

        Raises:
            OutageError: the connection broke; announcements until the next call are missed.
        """
        ...
