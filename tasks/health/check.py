"""The health check: the store is watched, refused without, and believed again.

A good check lengthens the lease; without one, admission refuses by itself. Three that fail in a row
have everything new refused at once, and a probe every 2 s sees the store come back. Then what the
spool kept is landed, and only then is anything admitted. Every transition leaves its receipt.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_hex
from typing import Literal

from governor.errors import ConflictError, GovernorError, OutageError, public_detail
from governor.health import ALIVE_FOR_S, CHECKS_TO_DEGRADE, Drill, Outage, Scope
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT
from governor.times import instant, timestamp
from ports import Ports
from ports.documents import Create, Update
from ports.health import Health
from tasks.health import modes, outages

_LOG = logging.getLogger("ggen.health")


@dataclass(frozen=True, slots=True)
class Transition:
    """A mode to be entered or left, as a check found it.

    ``began`` is when that check began; ``of`` is since when checks fail, or the id of the outage
    that is over, so that a message that comes late changes nothing else.
    """

    kind: Literal["enter", "leave"]
    scope: Scope
    began: str
    of: str
    drill: Drill | None = None


def check_health(ports: Ports) -> Transition | None:
    """The health check, each 10 s while everything is admitted (D11); what follows from it.

    Raises:
        OutageError: Memory is away, so that nothing is admitted.
    """
    known = ports.modes.health(Scope.ALL)
    if known.is_degraded or ports.lease.lease_left_s() <= 0:
        return None  # the recovery probe's
    if not ports.watches.claim_tick("health", 0.7 * ports.times.health_interval_s):
        return None
    return _look(ports, known, is_held=True)


def probe_recovery(ports: Ports) -> Transition | None:
    """The recovery probe, each 2 s while nothing is admitted; what follows from it.

    Raises:
        OutageError: as ``check_health``; or what a rebuild of Memory raises.
    """
    known = ports.modes.health(Scope.ALL)
    is_held = ports.lease.lease_left_s() > 0
    if is_held and not known.is_degraded:
        return None
    if not ports.watches.claim_tick("probe", 0.7 * ports.times.probe_interval_s):
        return None
    return _look(ports, known, is_held=is_held)


def _look(ports: Ports, known: Health, *, is_held: bool) -> Transition | None:
    """Check Documents; lengthen the lease, or say which mode is to be entered or left."""
    before = ports.watches.seen(["lease", "health", "beat", "ingress"])
    drill, began = ports.modes.drill(), ports.clock.now()
    try:
        is_first = probe(ports, "health/probe", ports.times.store_timeout_s)
    except Exception as error:  # whatever it is, the store cannot be relied upon
        return _failed(ports, Scope.ALL, known, drill, began, error)
    finally:
        every_s = max(ports.times.health_interval_s, ports.times.probe_interval_s)
        ports.watches.beat_alive("health", max(ALIVE_FOR_S, 2 * every_s))
    if known.is_degraded:
        return _leave(Scope.ALL, known, began)
    if not is_held and not is_first:
        _owe_a_lapse(ports, outages.lapsed(ports, known, before, began))
        known = replace(known, refused={})  # those are the lapse's
    ports.modes.note_success(Scope.ALL, known)
    modes.admit(ports, began)
    modes.is_drained(ports, began)  # what a moment's failure left there
    return None


def _owe_a_lapse(ports: Ports, outage: Outage) -> None:
    """Record an outage that no check saw, unless another check has done so.

    The spool is drained first: it may hold an outage that Memory does not know.
    """
    modes.is_drained(ports, instant(outage.recovered_at or outage.began_at))
    over = outage.evolve(recovered_at=timestamp(ports.clock.now()))
    ports.modes.owe(Scope.ALL, over, instead_of=None, lease_s=ports.times.lease_s)


def is_in_doubt(ports: Ports) -> bool:
    """Whether the store cannot be relied upon just now, so that the reaper rests.

    What the spool knows is asked for each action by itself.
    """
    if ports.lease.standing(SYSTEM_ACCOUNT) is not Verdict.ADMITTED:
        return True
    return ports.modes.health(Scope.ALL).failures > 0


def watch_drilled(ports: Ports) -> Transition | None:
    """The same for the tenants a drill names, as long as it or its outage lasts."""
    known, drill = ports.modes.health(Scope.SOME), ports.modes.drill()
    drill = drill if drill and drill.scope is Scope.SOME else None
    accounts = _drilled_accounts(known, drill)
    if not accounts:
        if known.failures:
            ports.modes.note_success(Scope.SOME, known)
        return None
    every_s = ports.times.probe_interval_s if known.is_degraded else ports.times.health_interval_s
    if not ports.watches.claim_tick(f"health:{Scope.SOME}", 0.7 * every_s):
        return None
    began = ports.clock.now()
    try:
        probe(ports, f"tenants/{accounts[0]}/health/probe", ports.times.store_timeout_s)
    except Exception as error:  # as above
        return _failed(ports, Scope.SOME, known, drill, began, error)
    if known.is_degraded:
        return _leave(Scope.SOME, known, began)
    ports.modes.note_success(Scope.SOME, known)
    outages.receipt_ended(ports, Scope.SOME, began)
    return None


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


def _leave(scope: Scope, known: Health, began: datetime) -> Transition | None:
    return (
        Transition("leave", scope, timestamp(began), known.outage.outage_id)
        if known.outage
        else None
    )


def _failed(
    ports: Ports,
    scope: Scope,
    seen: Health,
    drill: Drill | None,
    began: datetime,
    error: Exception,
) -> Transition | None:
    """Count a failed check; the third in a row has everything new refused.

    ``seen`` and ``drill`` are what went on when the check began.
    """
    code = error.status if isinstance(error, OutageError) else "INTERNAL"
    detail = public_detail(error)[:512] if isinstance(error, GovernorError) else repr(error)[:512]
    failures = ports.modes.note_failure(scope, seen, timestamp(began), code, detail)
    _LOG.warning("health check of %s failed, %d in a row: %s: %s", scope, failures, code, detail)
    if failures < CHECKS_TO_DEGRADE:
        return None
    if drill and drill.scope is not scope:
        drill = None
    known = ports.modes.health(scope)
    outage = known.outage
    if outage is None:
        return Transition("enter", scope, timestamp(began), known.failing_since, drill)
    outages.tell_begun(ports, outage, began)  # where that failed before
    if outage.drill and drill is None:
        real = outage.evolve(drill=False)
        if ports.modes.degrade(scope, real, instead_of=outage):
            outages.tell_real(ports, outage, code, detail)
    return None
