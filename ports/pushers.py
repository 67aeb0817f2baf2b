"""Pushers: who may deliver a tenant's signals in its name (D8)."""

from typing import Protocol


class Pushers(Protocol):
    """Tells the topic's own pusher from everybody else. May wait for the network: no event loop."""

    def check(self, authorization: str | None) -> None:
        """Accept a delivery by its Authorization header.

        Raises:
            InputError: ``unauthorized``; says nothing of what would have been accepted.
            OutageError: the token cannot be checked now; to be delivered again.
        """
        ...
