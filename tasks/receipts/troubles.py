"""What waits for the operator: logged with its cause, alerted once, shown until it is gone."""

import logging

from governor.errors import GovernorError, OutageError
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from tasks.receipts.commit import alert, commit_and_send

_LOG = logging.getLogger("ggen.troubles")
LOOK_EVERY_S = 30.0
SHOWN_FOR_S = 3 * LOOK_EVERY_S
"""How long a trouble is shown after it was noted last."""


def tell(
    ports: Ports, name: str, detail: str, *, blocks: bool = False, alerts: bool = True
) -> None:
    """Note a trouble. A new one is logged and, with ``alerts``, raises one critical alert.

    Args:
        ports: the stores, the keys and the clock.
        name: ``cause/subject``; repeats of one name are counted.
        detail: what happened, and what to do; no tenant's id, since ``/readyz`` shows it.
        blocks: whether work is refused because of it, so that the system is not ready.
        alerts: false where another alert was raised already.
    """
    try:
        is_new = ports.troubles.note_trouble(name, detail, blocks=blocks, seconds=SHOWN_FOR_S)
    except OutageError as error:
        _LOG.error("%s: %s (Memory does not know of it: %s)", name, detail, error)
        return
    if not is_new:
        return
    _LOG.error("%s: %s", name, detail)
    if not alerts:
        return
    cause, _, subject = name.partition("/")
    again = int(ports.clock.now().timestamp())  # the same trouble may come again another day
    writes, told = alert(
        ports, "critical", cause, SYSTEM_ACCOUNT, subject or cause, detail, attempt=again
    )
    try:
        commit_and_send(ports, told, *writes)
    except OutageError as error:
        ports.alerts.send(told)
        _LOG.error("the alert of %s is not receipted: %s", name, error)


def policy_unusable(ports: Ports, error: GovernorError, sku_id: str, plan_type: str) -> None:
    """A policy in force cannot be used by this process: its work is refused."""
    tell(ports, f"policy-unusable/{sku_id}/{plan_type}", error.detail, blocks=True)
