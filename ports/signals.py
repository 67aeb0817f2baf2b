"""Signals: a topic per tenant, whose messages reach the ingress by HTTP push (D8)."""

from typing import Protocol


class Signals(Protocol):
    """Creates, checks, deletes and publishes. Delivery is always push, never this port's work.

    A message is pushed at least once until the ingress answers 2xx.
    """

    def create(self, account_id: str) -> bool:
        """Topic and push subscription of a tenant; True when this call made them.

        Raises:
            ConflictError: a topic of that name exists with another configuration.
            OutageError: unknown; repeating is safe.
        """
        ...

    def exists(self, account_id: str) -> bool:
        """Whether topic and subscription are both there. Raises OutageError."""
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
