"""Alerts: a log line at once, and a letter to each address of ``secrets/alert.urls``.

An address is a URL as Apprise knows them (mailto://, slack://, pagerduty://, json:// …). It holds
a secret, so this module exposes only its digest and its kind.
"""

import hashlib
import logging
from collections.abc import Sequence

from adapters.local.secret_files import SecretFiles
from governor.errors import OutageError
from ports.alerts import Alert, Letter, Outbox

_LOG = logging.getLogger("ggen.alerts")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}
_KINDS = {"info": "success", "warning": "warning", "critical": "failure"}
_SHOWN = 10
"""Most letters that a message lists in full; it counts further ones."""


class PostedAlerts:
    """See ``ports.alerts.Alerts`` for what it promises."""

    def __init__(self, secrets: SecretFiles, outbox: Outbox) -> None:
        self._secrets, self._outbox = secrets, outbox

    def send(self, alert: Alert) -> None:
        _LOG.log(
            _LEVELS[alert.severity],
            "ALERT %s for %s: %s: %s",
            alert.cause,
            alert.account_id,
            alert.subject,
            alert.detail,
            extra={"action": "alert_sent"},
        )
        try:
            for address in self.addresses():
                self._outbox.post(Letter(alert, address))
        except OutageError as error:
            _LOG.error("alert %s is in the log alone: %s", alert.alert_id, error)

    def addresses(self) -> dict[str, str]:
        return {digest_of(url): url.partition(":")[0] for url in self._secrets.alert_urls()}

    def deliver(self, letters: Sequence[Letter]) -> str:
        from apprise import Apprise

        address = letters[0].address
        url = next((u for u in self._secrets.alert_urls() if digest_of(u) == address), None)
        if url is None:
            _LOG.warning("an address was removed; %d alerts for it are dropped", len(letters))
            return ""
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its words may hold the address
        courier = Apprise()
        if not courier.add(url):
            return "Apprise knows no such address"
        kind = url.partition(":")[0]
        title, body = message(letters)
        try:
            taken = courier.notify(body, title, _KINDS[letters[0].alert.severity])
        except Exception as error:  # a plugin's own fault must not keep the others from going
            return f"{kind}: {type(error).__name__}"
        return "" if taken else f"{kind}: not taken"


def digest_of(url: str) -> str:
    """The name of an address, that tells nothing of it."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def unknown_addresses(urls: Sequence[str]) -> list[int]:
    """The numbers (from 1) of the lines Apprise can make nothing of."""
    if not urls:
        return []
    from apprise import Apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    return [number for number, url in enumerate(urls, 1) if not Apprise().add(url)]


def message(letters: Sequence[Letter]) -> tuple[str, str]:
    """Title and body for alerts of one severity and cause."""
    first, count = letters[0].alert, len(letters)
    title = f"ggen {first.severity}: {first.cause}" + (f" ({count} times)" if count > 1 else "")
    lines = [
        f"{a.account_id}: {a.subject}: {a.detail} (receipt {a.alert_id})"
        for a in (letter.alert for letter in letters[:_SHOWN])
    ]
    if count > _SHOWN:
        lines.append(f"and {count - _SHOWN} more: ggen receipts --operation alert_raised")
    return title, "\n".join(lines)
