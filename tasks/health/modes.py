"""Safe mode is entered and left: each transition is a task, and leaves its receipt."""

import logging
from datetime import datetime

from governor.errors import OutageError
from governor.health import CHECKS_TO_DEGRADE, Drill, Scope
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.health import Health
from tasks.health import outages
from tasks.health.rebuild import rebuild
from tasks.outcomes import ALREADY_DONE, DONE, NOT_NEEDED, Outcome, put_off
from tasks.receipts import spool

_LOG = logging.getLogger("ggen.health")
_BELIEVED_FOR_S = 10.0
"""How old a good check may be that has everybody served again."""


def enter(ports: Ports, scope: Scope, began: str, since: str, drill: Drill | None) -> Outcome:
    """Refuse everything new of a scope, and say so; unless a check has succeeded since then."""
    known = ports.modes.health(scope)
    if known.outage is not None:
        return ALREADY_DONE
    if known.failures < CHECKS_TO_DEGRADE or known.failing_since != since:
        return NOT_NEEDED  # a check has succeeded meanwhile
    outage = outages.begun(ports, scope, known, drill)
    if not ports.modes.degrade(scope, outage, instead_of=None):
        return ALREADY_DONE
    code = known.error_code
    _LOG.critical("degraded: everything new of %s is refused (%s)", outage.affected, code)
    outages.tell_begun(ports, outage, instant(began))
    return DONE


def leave(ports: Ports, scope: Scope, began: str, outage_id: str) -> Outcome:
    """Land what was kept, then admit again, and receipt the end of the outage.

    Raises:
        OutageError: a store is away again; the next probe goes on with it.
    """
    known, at = ports.modes.health(scope), instant(began)
    if known.outage is None or known.outage.outage_id != outage_id:
        return ALREADY_DONE
    if not is_drained(ports, at):
        return put_off("what was kept meanwhile has not landed yet; the next probe goes on")
    if not _recover(ports, scope, known):
        return put_off("another process is at it, or the outage goes on")
    if scope is Scope.ALL:
        admit(ports, at)
        is_drained(ports, at)
    else:
        outages.receipt_ended(ports, scope, at)
    return DONE


def admit(ports: Ports, began: datetime) -> None:
    """After a good check: the lease, and then the receipts that are owed."""
    if not ports.lease.extend_lease(ports.times.lease_s) and not rebuild(
        ports, ports.times.lease_s
    ):
        return  # another rebuild goes on: nothing is admitted yet
    for scope in Scope:
        outages.receipt_ended(ports, scope, began)


def is_drained(ports: Ports, began: datetime) -> bool:
    """Land what the spool kept; False where some, or an unknown amount, of it still waits.

    Also where it took so long that the check which found the store well is not to be believed.
    """
    try:
        left = spool.drain(ports)
    except OutageError as error:
        _LOG.warning("the spool is not drained: %s", error)
        return False
    return left == 0 and elapsed_ms(timestamp(began), ports.clock.now()) < _BELIEVED_FOR_S * 1000


def _recover(ports: Ports, scope: Scope, known: Health) -> bool:
    """Back to normal; the receipt is owed from this moment on. False where that was moved.

    Signals that were on their way to the store when it was given up are answered and counted first.
    """
    outage = known.outage
    if outage is None:
        return False
    since = outage.degraded_at or outage.began_at
    degraded_for_s = elapsed_ms(since, ports.clock.now()) / 1000
    ports.clock.sleep(max(0.0, 2.2 * ports.times.store_timeout_s - degraded_for_s))
    over = outage.evolve(
        recovered_at=timestamp(ports.clock.now()),
        accepted=known.accepted if scope is Scope.ALL else None,
    )
    lease_s = ports.times.lease_s if scope is Scope.ALL else 0
    if not ports.modes.owe(scope, over, instead_of=outage, lease_s=lease_s):
        return False
    _LOG.warning("recovered: %s are served again", outage.affected)
    return True
