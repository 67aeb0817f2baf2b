"""Alerts as log lines; the receipt was committed before."""

import logging

from ports.alerts import Alert

_LOG = logging.getLogger("ggen.alerts")


class LogAlerts:
    """See ``ports.alerts.Alerts`` for what it promises."""

    def send(self, alert: Alert) -> None:
        level = logging.CRITICAL if alert.severity == "critical" else logging.WARNING
        _LOG.log(
            level,
            "ALERT %s for %s: %s: %s",
            alert.cause, alert.account_id, alert.subject, alert.detail,
            extra={"action": "alert_sent"},
        )  # fmt: skip
