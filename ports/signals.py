"""Signals: a topic per tenant, whose messages reach the ingress by HTTP push (D8)."""

from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What is there of a tenant's topic and subscription."""

    ABSENT = "absent"
    DAMAGED = "damaged"
    """A part is missing, or configured otherwise than ``create`` would."""
    FOREIGN = "foreign"
    """Something else has its name."""
    READY = "ready"


class Signals(Protocol):
    """Creates, checks, deletes and publishes. Delivery is always push, never this port's work.

    A message is pushed at least once until the ingress answers 2xx.
    """

    def look(self, account_id: str) -> Topic:
        """What is there of a tenant's topic; checked, not assumed. Raises OutageError."""
        ...

    def create(self, account_id: str) -> None:
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

    def backlog(self, account_id: str) -> int:
        """Messages not yet acknowledged (D25). Raises OutageError."""
        ...
