"""Calls of actions to the outside, by HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``is_cut``: it was longer than was asked for, and the rest was not read."""

    status: int
    body: bytes
    is_cut: bool = False


class Calls(Protocol):
    """One request, one answer: nothing is repeated, and no redirect is followed."""

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        within_s: float,
        most_bytes: int,
    ) -> Answer:
        """Send a request to a public address, or to one that the operator allows.

        Raises:
            UnrecoverableError: ``ADDRESS_REFUSED``: it was sent nowhere.
            ActionError: ``CALL_FAILED``: no answer; the other side MAY HAVE acted.
        """
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...
