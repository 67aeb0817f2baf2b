"""The health check: the store is watched, refused without, and believed again.

A good check lengthens the lease; without one, admission refuses by itself. Three that fail in a row
have everything new refused at once, and a probe every 2 s sees the store come back. Then what the
spool kept is landed, and only then is anything admitted. Every transition leaves its receipt.
"""

import logging
from dataclasses import replace
from datetime import datetime
from secrets import token_hex

from governor.errors import ConflictError, GovernorError, OutageError, public_detail
from governor.health import ALIVE_FOR_S, CHECKS_TO_DEGRADE, Drill, Outage, Scope
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.documents import Create, Update
from ports.health import Health
from tasks.health import outages
from tasks.health.rebuild import rebuild
from tasks.receipts import spool

_LOG = logging.getLogger("ggen.health")
_BELIEVED_FOR_S = 10.0
"""How old a good check may be that has everybody served again."""


def keep_lease(ports: Ports) -> None:
    """Check Documents; lengthen the lease, or refuse, or recover (D11).

    Each 10 s, and each 2 s while nothing is admitted; another beat does not make it more often.

    Raises:
        OutageError: Memory is away, so that nothing is admitted; or what a rebuild raises.
    """
    known = ports.modes.health(Scope.ALL)
    is_held = ports.lease.lease_left_s() > 0
    name, every_s = "health", ports.times.health_interval_s
    if known.is_degraded or not is_held:
        name, every_s = "probe", ports.times.probe_interval_s
    if not ports.watches.claim_tick(name, 0.7 * every_s):
        return
    before = ports.watches.seen(["health", "beat", "ingress"])
    drill, began = ports.modes.drill(), ports.clock.now()
    try:
        is_first = probe(ports, "health/probe", ports.times.store_timeout_s)
    except Exception as error:  # whatever it is, the store cannot be relied upon
        _failed(ports, Scope.ALL, drill, began, error)
        return
    finally:
        ports.watches.beat_alive("health", max(ALIVE_FOR_S, 2 * every_s))
    if known.is_degraded:
        if not (_is_drained(ports, began) and _recover(ports, Scope.ALL, known)):
            return  # the next probe goes on with it
    else:
        if not is_held and not is_first:
            _owe_a_lapse(ports, outages.lapsed(ports, known, before, began))
            known = replace(known, refused={})  # those are the lapse's
        ports.modes.note_success(Scope.ALL, known)
    _admit(ports, began)
    _is_drained(ports, began)  # what a moment's failure left there


def _owe_a_lapse(ports: Ports, outage: Outage) -> None:
    """Record an outage that no check saw, unless another check has done so.

    The spool is drained first: it may hold an outage that Memory does not know.
    """
    _is_drained(ports, instant(outage.recovered_at or outage.began_at))
    over = outage.evolve(recovered_at=timestamp(ports.clock.now()))
    ports.modes.owe(Scope.ALL, over, instead_of=None, lease_s=ports.times.lease_s)


def _admit(ports: Ports, began: datetime) -> None:
    """After a good check: the lease, and then the receipts that are owed."""
    if not ports.lease.extend_lease(ports.times.lease_s) and not rebuild(
        ports, ports.times.lease_s
    ):
        return  # another rebuild goes on: nothing is admitted yet
    for scope in Scope:
        outages.receipt_ended(ports, scope, began)


def is_in_doubt(ports: Ports) -> bool:
    """Whether the store cannot be relied upon just now, so that the reaper rests.

    What the spool knows is asked for each action by itself.
    """
    if ports.lease.standing(SYSTEM_ACCOUNT) is not Verdict.ADMITTED:
        return True
    return ports.modes.health(Scope.ALL).failures > 0


def watch_drilled(ports: Ports) -> None:
    """The same for the tenants a drill names, as long as it or its outage lasts."""
    known, drill = ports.modes.health(Scope.SOME), ports.modes.drill()
    drill = drill if drill and drill.scope is Scope.SOME else None
    accounts = _drilled_accounts(known, drill)
    if not accounts:
        if known.failures:
            ports.modes.note_success(Scope.SOME, known)
        return
    every_s = ports.times.probe_interval_s if known.is_degraded else ports.times.health_interval_s
    if not ports.watches.claim_tick(f"health:{Scope.SOME}", 0.7 * every_s):
        return
    began = ports.clock.now()
    try:
        probe(ports, f"tenants/{accounts[0]}/health/probe", ports.times.store_timeout_s)
    except Exception as error:  # as above
        _failed(ports, Scope.SOME, drill, began, error)
        return
    if known.is_degraded:
        if not (_is_drained(ports, began) and _recover(ports, Scope.SOME, known)):
            return
    else:
        ports.modes.note_success(Scope.SOME, known)
    outages.receipt_ended(ports, Scope.SOME, began)


def probe(ports: Ports, path: str, call_bound_s: float) -> bool:
    """Write and read one document the way a receipt is; whether it is the first ever.

    Each call is bounded to ``call_bound_s``. The last is not made where the two before it took more
    together: so a check is bounded to twice that (D11), and a store that slow has failed it.

    Raises:
        OutageError: the store did not take it, did not give it back, gave back another, or is slow.
    """
    began_s = ports.clock.monotonic_s()
    written = {"nonce": token_hex(16), "checked_at": timestamp(ports.clock.now())}
    found = ports.documents.get(path)
    write = Update(path, written, found.revision) if found else Create(path, written)
    try:
        ports.documents.commit([write])
    except ConflictError as error:
        raise OutageError(
            "documents-contested",
            f"another process wrote the probe document: {error}",
            5,
            "ABORTED",
        ) from error
    took_s = ports.clock.monotonic_s() - began_s
    if took_s > call_bound_s:
        raise OutageError(
            "documents-slow", f"a read and a commit took {took_s:.2f} s", 5, "DEADLINE_EXCEEDED"
        )
    back = ports.documents.get(path)
    if back is None or back.data != written:
        raise OutageError(
            "documents-forgetful", "the store does not give back what it took", 5, "DATA_LOSS"
        )
    return found is None


def _drilled_accounts(known: Health, drill: Drill | None) -> list[str]:
    if known.outage:
        return list(known.outage.accounts)
    return list(drill.accounts) if drill else []


def _is_drained(ports: Ports, began: datetime) -> bool:
    """Land what the spool kept; False where some, or an unknown amount, of it still waits.

    Also where it took so long that the check which found the store well is not to be believed.
    """
    try:
        left = spool.drain(ports)
    except OutageError as error:
        _LOG.warning("the spool is not drained: %s", error)
        return False
    return left == 0 and elapsed_ms(timestamp(began), ports.clock.now()) < _BELIEVED_FOR_S * 1000


def _failed(
    ports: Ports,
    scope: Scope,
    drill: Drill | None,
    began: datetime,
    error: Exception,
) -> None:
    """Count a failed check; the third in a row has everything new refused, then says so.

    ``drill`` is what went on when the check began.
    """
    code = error.status if isinstance(error, OutageError) else "INTERNAL"
    detail = public_detail(error)[:512] if isinstance(error, GovernorError) else repr(error)[:512]
    failures = ports.modes.note_failure(scope, timestamp(began), code, detail)
    _LOG.warning("health check of %s failed, %d in a row: %s: %s", scope, failures, code, detail)
    if failures < CHECKS_TO_DEGRADE:
        return
    if drill and drill.scope is not scope:
        drill = None
    known = ports.modes.health(scope)
    outage = known.outage
    if outage is None:
        outage = outages.begun(ports, scope, known, drill)
        if not ports.modes.degrade(scope, outage, instead_of=None):
            return  # another check was faster
        _LOG.critical("degraded: everything new of %s is refused (%s)", outage.affected, code)
    outages.tell_begun(ports, outage, began)
    if outage.drill and drill is None:
        real = outage.evolve(drill=False)
        if ports.modes.degrade(scope, real, instead_of=outage):
            outages.tell_real(ports, outage, code, detail)


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
    over = outage.evolve(recovered_at=timestamp(ports.clock.now()))
    lease_s = ports.times.lease_s if scope is Scope.ALL else 0
    if not ports.modes.owe(scope, over, instead_of=outage, lease_s=lease_s):
        return False
    _LOG.warning("recovered: %s are served again", outage.affected)
    return True
