"""Alerts: telling a person, without ever waiting for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Severity = Literal["info", "warning", "critical"]
"""``info`` says that something is well again."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to the operator. Its ``alert_raised`` receipt was committed before it is sent.

    While the store is away it is sent first, and its receipt waits in the spool.
    """

    alert_id: str
    severity: Severity
    cause: str
    account_id: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Letter:
    """An alert on its way to one ``address``, which is named by a digest: addresses are secret."""

    alert: Alert
    address: str
    attempts: int = 0
    fault: str = ""

    @property
    def letter_id(self) -> str:
        """One alert goes to one address once."""
        return f"{self.alert.alert_id}/{self.address}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A letter that its address took, ``ago_s`` seconds ago."""

    letter: Letter
    ago_s: float


class Alerts(Protocol):
    """The receipt is the record; delivery is retried until it succeeds, and blocks no caller."""

    def send(self, alert: Alert) -> None:
        """Log it, and have it delivered to every address. Returns at once, and never raises."""
        ...

    def addresses(self) -> dict[str, str]:
        """Where alerts go: the digest of each address, and its kind. Raises OutageError."""
        ...

    def deliver(self, letters: Sequence[Letter]) -> str:
        """Bring letters to one address, which they share, as one message; why not, if not.

        Takes up to half a minute.
        """
        ...


class Outbox(Protocol):
    """Letters that wait to be delivered: a part of Memory."""

    def post(self, letter: Letter) -> None:
        """Have it delivered; nothing happens where that was asked before."""
        ...

    def take_letters(self, limit: int, hold_s: float) -> list[Letter]:
        """Letters that are due; no other caller gets them for ``hold_s``."""
        ...

    def delivered(self, letter: Letter) -> None:
        """Its address took it: not delivered again, and among the newest in ``deliveries``."""
        ...

    def deliveries(self, limit: int) -> list[Delivery]:
        """The newest letters that were taken, newest first; the last 100 are known."""
        ...

    def not_delivered(self, letter: Letter, fault: str, again_in_s: float) -> None:
        """Try it again later; until then it can be seen in ``undelivered``."""
        ...

    def undelivered(self, limit: int) -> list[Letter]:
        """Letters that were tried in vain."""
        ...
