"""Alerts: telling a person, without ever waiting for one."""

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody should know. Its ``alert_raised`` receipt was committed before it is sent."""

    alert_id: str
    severity: Literal["warning", "critical"]
    cause: str
    account_id: str
    subject: str
    detail: str


class Alerts(Protocol):
    """Delivery is best effort and never raises: the receipt is the record."""

    def send(self, alert: Alert) -> None:
        """Tell. Returns at once."""
        ...
