"""Alert delivery: retried until the address accepts, apart from the code that raised the alert.

Alerts of one cause that wait together become one message, so that a storm is not a flood.
"""

import logging
from collections import defaultdict

from ports import Ports
from ports.alerts import Letter
from tasks.sweep import alone, for_a_while

_LOG = logging.getLogger("ggen.alerts")
_AT_ONCE, _HOLD_S, _PATIENCE_S = 200, 90.0, 20.0
_FIRST_RETRY_S, _LAST_RETRY_S = 5.0, 600.0


def deliver(ports: Ports) -> None:
    """Deliver due alerts, one deliverer at a time."""
    with alone(ports, "deliver", _HOLD_S) as is_alone:
        if is_alone:
            deliver_due(ports)


def deliver_due(ports: Ports) -> None:
    """Deliver due alerts, one message for each address, severity and cause, for a while.

    What there was no time for is due again when its holding is over.
    """
    together: dict[tuple[str, str, str], list[Letter]] = defaultdict(list)
    for letter in ports.outbox.take_letters(_AT_ONCE, _HOLD_S):
        together[letter.address, letter.alert.severity, letter.alert.cause].append(letter)
    for letters in for_a_while(ports, together.values(), _PATIENCE_S):
        fault = ports.alerts.deliver(letters)
        for letter in letters:
            if fault:
                ports.outbox.not_delivered(letter, fault, _rest_s(letter.attempts))
            else:
                ports.outbox.delivered(letter)
        if fault:
            _LOG.error(
                "%d alerts were not delivered, they are tried again: %s", len(letters), fault
            )


def _rest_s(attempts: int) -> float:
    return min(_LAST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(attempts, 20))
