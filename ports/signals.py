"""Signals: a topic per tenant, whose messages reach the ingress by HTTP push (D8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

MAX_MESSAGE_BYTES = 64 * 1024
"""Largest message of a topic; the ingress takes no larger signal."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was pushed a hundred times in vain; ``handle`` is the service's own."""

    account_id: str
    message_id: str
    data: bytes
    handle: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message of a topic that nothing pushes any more; ``handle`` is the service's own."""

    message_id: str
    data: bytes
    handle: str


class Topic(StrEnum):
    """The state of a tenant's topic and subscription."""

    ABSENT = "absent"
    DAMAGED = "damaged"
    """A part is missing, or configured otherwise than ``create`` would."""
    FOREIGN = "foreign"
    """Something else has its name."""
    READY = "ready"


class Signals(Protocol):
    """Creates, checks, deletes and publishes. Delivery is always push, never this port's work.

    A message is pushed at least once until the ingress answers 2xx. ``region`` is where its
    messages may lie, of whatever else a topic's messages may lie in.
    """

    def look(self, account_id: str, region: str) -> Topic:
        """The state of a tenant's topic; checked, not assumed. Raises OutageError."""
        ...

    def create(self, account_id: str, region: str) -> None:
        """Have topic and push subscription READY; a damaged topic keeps its messages.

        Raises:
            ConflictError: something of that name is there that cannot be repaired; it was left.
            OutageError: unknown; repeating is safe.
        """
        ...

    def delete(self, account_id: str) -> None:
        """Remove subscription, then topic, with what was not delivered. Raises OutageError."""
        ...

    def publish(self, account_id: str, message: bytes) -> str:
        """Append a message; durable on return. The id of the message.

        Raises:
            InputError: there is no such topic, or the message is larger than 64 KiB.
            OutageError: unknown: it may have been published.
        """
        ...

    def stop_pushing(self, account_id: str) -> None:
        """Have a topic's messages pushed no more, so that they can be taken. Raises OutageError.

        Nothing happens where there is no subscription.
        """
        ...

    @property
    def lets_rest(self) -> bool:
        """Whether a message may rest after a push or a ``take``, and ``take`` then gives nothing.

        Then ``backlog`` is a reading of some minutes ago, too.
        """
        ...

    def take(self, account_id: str, limit: int) -> Sequence[Waiting]:
        """Some messages of a topic that nothing pushes; each comes again until it is dropped.

        None may come although some wait: one that was just pushed rests for a while. Raises
        OutageError.
        """
        ...

    def drop(self, account_id: str, messages: Sequence[Waiting]) -> None:
        """Take messages off a topic for ever. Raises OutageError: repeating is safe."""
        ...

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Some messages that could not be delivered; each is returned again until it is buried.

        Raises OutageError.
        """
        ...

    def bury(self, letter: DeadLetter) -> None:
        """Forget a dead letter that was published again. Raises OutageError: repeating is safe."""
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...

    def backlog(self, account_id: str) -> int:
        """Messages not yet acknowledged (D25). Raises OutageError."""
        ...

    def backlog_then(self, account_id: str) -> tuple[int, datetime]:
        """The same, and as of when that was so. Raises OutageError."""
        ...
