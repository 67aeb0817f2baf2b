"""Runbook 4, Degrade to Safe Mode: the store is watched, refused without, and believed again.

A good check lengthens the lease; without one, admission refuses by itself. Three that fail in a row
have everything new refused at once, and a probe every 2 s sees the store come back. Then what the
spool kept is landed, and only then is anything admitted. Every transition leaves its receipt.
"""

import logging
from datetime import datetime
from secrets import token_hex

from pydantic import BaseModel, Field

from adapters import wiring
from config.settings import Settings, load
from governor.errors import ConflictError, GovernorError, OutageError, public_detail
from governor.health import ALIVE_FOR_S, CHECKS_TO_DEGRADE, Drill, Outage, Scope
from governor.records import AccountId, elapsed_ms, instant, timestamp
from ports import Ports
from ports.documents import Create, Update
from ports.health import Health
from tasks.celery import app
from tasks.health import outages
from tasks.health.rebuild import rebuild
from tasks.receipts import spool
from tasks.runs.definition import Manual

_LOG = logging.getLogger("ggen.health")
_BELIEVED_FOR_S = 10.0
"""How old a good check may be that has everybody served again."""


@app.task(name="degrade_to_safe_mode.check", send_events=False)
def check(by_beat: bool = False) -> None:
    """A health check of every scope, if one is due."""
    ports, settings = wiring.ports(), load()
    if by_beat:
        ports.memory.beat_alive("beat", 2 * settings.health_interval_s)
    keep_lease(ports, settings)
    watch_drilled(ports, settings)


def keep_lease(ports: Ports, settings: Settings) -> None:
    """Check Documents; lengthen the lease, or refuse, or recover (D11).

    Each 10 s, and each 2 s while nothing is admitted; another beat does not make it more often.

    Raises:
        OutageError: Memory is away, so that nothing is admitted; or what a rebuild raises.
    """
    known = ports.memory.health(Scope.ALL)
    is_held = ports.memory.lease_left_s() > 0
    name, every_s = "health", settings.health_interval_s
    if known.is_degraded or not is_held:
        name, every_s = "probe", settings.probe_interval_s
    if not ports.memory.claim_tick(name, 0.9 * every_s):
        return
    before = ports.memory.seen(["health", "beat", "ingress"])
    drill, began = ports.memory.drill(), ports.clock.now()
    try:
        is_first = probe(ports, "health/probe", settings.store_timeout_s)
    except Exception as error:  # whatever it is, the store cannot be relied upon
        _failed(ports, settings, Scope.ALL, drill, began, error)
        return
    finally:
        ports.memory.beat_alive("health", max(ALIVE_FOR_S, 2 * every_s))
    if known.is_degraded:
        if not (_is_drained(ports, began) and _recover(ports, settings, Scope.ALL, known)):
            return  # the next probe goes on with it
    else:
        if not is_held and not is_first:
            _owe_a_lapse(ports, outages.lapsed(ports, settings, known, before, began))
        ports.memory.note_success(Scope.ALL, known)
    _admit(ports, settings, began)
    _is_drained(ports, began)  # what a moment's failure left there


def _owe_a_lapse(ports: Ports, outage: Outage) -> None:
    """Nobody had checked, or Memory was lost: an outage may wait in the spool, unknown to it."""
    _is_drained(ports, instant(outage.recovered_at or outage.began_at))
    if not ports.memory.owed(Scope.ALL):
        text = outage.model_dump_json()
        ports.memory.owe(Scope.ALL, outage.outage_id, text, instead_of="")


def _admit(ports: Ports, settings: Settings, began: datetime) -> None:
    """After a good check: the lease, and then the receipts that are owed."""
    if not ports.memory.extend_lease(settings.lease_s) and not rebuild(ports, settings.lease_s):
        return  # another rebuild goes on: nothing is admitted yet
    for scope in Scope:
        outages.receipt_ended(ports, scope, began)


def watch_drilled(ports: Ports, settings: Settings) -> None:
    """The same for the tenants a drill names, as long as it or its outage lasts."""
    known, drill = ports.memory.health(Scope.SOME), ports.memory.drill()
    drill = drill if drill and drill.scope is Scope.SOME else None
    accounts = _drilled_accounts(known, drill)
    if not accounts:
        if known.failures:
            ports.memory.note_success(Scope.SOME, known)
        return
    every_s = settings.probe_interval_s if known.is_degraded else settings.health_interval_s
    if not ports.memory.claim_tick(f"health:{Scope.SOME}", 0.9 * every_s):
        return
    began = ports.clock.now()
    try:
        probe(ports, f"tenants/{accounts[0]}/health/probe", settings.store_timeout_s)
    except Exception as error:  # as above
        _failed(ports, settings, Scope.SOME, drill, began, error)
        return
    if known.is_degraded:
        if not (_is_drained(ports, began) and _recover(ports, settings, Scope.SOME, known)):
            return
    else:
        ports.memory.note_success(Scope.SOME, known)
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
            "documents-contested", f"the probe was moved by somebody else: {error}", 5, "ABORTED"
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
        return list(Outage.model_validate_json(known.outage).accounts)
    return list(drill.accounts) if drill else []


def _is_drained(ports: Ports, began: datetime) -> bool:
    """Land what the spool kept; false where some of it, or nobody knows how much, still waits.

    Also where it took so long that the check which found the store well is not to be believed.
    """
    try:
        left = spool.drain(ports)
    except OutageError as error:
        _LOG.warning("the spool is not drained: %s", error)
        return False
    return left == 0 and elapsed_ms(timestamp(began), ports.clock.now()) < _BELIEVED_FOR_S * 1000


def _failed(
    ports: Ports, settings: Settings, scope: Scope, drill: Drill | None, began: datetime,
    error: Exception,
) -> None:  # fmt: skip
    """Count a failed check; the third in a row has everything new refused, then says so.

    ``drill`` is what went on when the check began.
    """
    code = error.status if isinstance(error, OutageError) else "INTERNAL"
    detail = public_detail(error)[:512] if isinstance(error, GovernorError) else repr(error)[:512]
    failures = ports.memory.note_failure(scope, timestamp(began), code, detail)
    _LOG.warning("health check of %s failed, %d in a row: %s: %s", scope, failures, code, detail)
    if failures < CHECKS_TO_DEGRADE:
        return
    if drill and drill.scope is not scope:
        drill = None
    known = ports.memory.health(scope)
    if known.outage:
        outage = Outage.model_validate_json(known.outage)
    else:
        outage = outages.begun(ports, settings, scope, known, drill)
        text = outage.model_dump_json()
        if not ports.memory.degrade(scope, text, outage.accounts, instead_of=""):
            return  # another check was faster
        _LOG.critical("degraded: everything new of %s is refused (%s)", outage.affected, code)
    outages.tell_begun(ports, outage, began)
    if outage.drill and drill is None:
        real = outage.evolve(drill=False)
        text = real.model_dump_json()
        if ports.memory.degrade(scope, text, real.accounts, instead_of=known.outage):
            outages.tell_real(ports, outage, code, detail)


def _recover(ports: Ports, settings: Settings, scope: Scope, known: Health) -> bool:
    """Back to normal; the receipt is owed from this moment on. False where that was moved.

    Signals that were on their way to the store when it was given up are answered and counted first.
    """
    outage = Outage.model_validate_json(known.outage)
    since = outage.degraded_at or outage.began_at
    degraded_for_s = elapsed_ms(since, ports.clock.now()) / 1000
    ports.clock.sleep(max(0.0, 2.2 * settings.store_timeout_s - degraded_for_s))
    over = outage.evolve(recovered_at=timestamp(ports.clock.now())).model_dump_json()
    if not ports.memory.owe(scope, outage.outage_id, over, instead_of=known.outage):
        return False
    _LOG.warning("recovered: %s are served again", outage.affected)
    return True


class Degradation(BaseModel):
    """What sets the runbook off; nobody types it in."""

    failure_reason: str = Field(
        description="the status of the failed call, in gRPC's words: `UNAVAILABLE`, "
        "`DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `DATA_LOSS`, `ABORTED`, `INTERNAL` …"
    )
    affected_tenants: list[AccountId] | None = Field(
        default=None, description="those a drill names (`--tenant`); else everybody"
    )


MANUAL = Manual(
    number=4,
    title="Degrade to Safe Mode",
    purpose=(
        "While the store of truth cannot be relied upon, everything new is refused; what is under "
        "way ends, and its outcome is kept elsewhere. When the store is back, that is landed, and "
        "all goes on. Nobody has to do anything."
    ),
    trigger=(
        "three health checks in a row have failed: every 10 s a document is read, committed and "
        "read back on the path of a receipt, in 2 s at most. Or the lease ran out, because nobody "
        "checked"
    ),
    inputs=Degradation,
    outputs=(
        "new actions, pushes, webhooks, queued actions and steps of runs are refused: 503 with "
        "`Retry-After`, each counted",
        "`degraded_mode`, signed at once and kept in the spool; a critical alert",
        "commits of actions that end meanwhile, whole, in the spool",
        "`degraded_mode_cleared` with the downtime and the refusals, and all as before",
    ),
    refusals=(
        ("the spool cannot be written either",
         "the process that knows the outcome dies, its message is not acknowledged, and the reaper "
         "ends the action by what Documents say"),
        ("the spool cannot be drained or listed", "nothing is admitted; the next probe goes on"),
        ("a spooled commit's precondition does not hold",
         "it is set aside, with `receipt_conflict` and a critical alert"),
        ("beat, the health worker or Memory is dead or silent",
         "the lease runs out within 33 s, and refuses by itself; the first receipt afterwards says "
         "who was silent"),
        ("Memory was lost", "the same at once; it is rebuilt from Documents first"),
        ("an alert is not delivered",
         "it is tried again, from 5 s to 10 min apart; `ggen status` shows it"),
    ),
    slis=(
        ("fault to degraded", "≤ 33 s"),
        ("end of the fault to normal", "≤ 3 s"),
        ("refused while degraded", "100 %"),
    ),
    receipts=("degraded_mode", "degraded_mode_cleared", "receipt_conflict", "alert_raised"),
    sequence=(
        "sequenceDiagram",
        "participant Check as Health check", "participant Documents", "participant Memory",
        "participant Spool as Spool (Objects)", "participant Alerts", "participant Ingress",
        "loop every 10 s",
        "  Check->>Documents: read, commit a nonce, read it back (2 s in all)",
        "  alt it came back",
        "    Check->>Memory: lengthen the lease (33 s)",
        "  else anything else",
        "    Check->>Memory: one more failure",
        "    alt it is the third in a row",
        "      Check->>Memory: mode degraded",
        "      Check->>Alerts: critical alert",
        "      Check->>Spool: degraded_mode, signed now",
        "      Ingress-->>Ingress: 503 for all that is new, counted",
        "    end",
        "  end",
        "end",
        "loop every 2 s while degraded",
        "  Check->>Documents: the same probe",
        "  alt it came back",
        "    Check->>Spool: what waits?",
        "    Check->>Documents: land it, in order",
        "    Check->>Memory: mode normal, lease",
        "    Check->>Documents: degraded_mode_cleared",
        "  end",
        "end",
    ),
)  # fmt: skip
