"""Runbook 4, Degrade to Safe Mode: everything new is refused while the store cannot be trusted."""

from typing import Any

from pydantic import BaseModel, Field

from adapters import wiring
from governor.errors import OutageError
from governor.health import Drill, Scope
from governor.records import AccountId
from governor.slo import contract
from tasks import publish
from tasks.celery import app
from tasks.health import check as checking
from tasks.health import modes
from tasks.health.check import Transition
from tasks.manual import Manual
from tasks.outcomes import put_off
from tasks.results import result_of


@app.task(name="degrade_to_safe_mode.check", send_events=False)
def check(by_beat: bool = False) -> None:
    """The health check of every scope, each 10 s; ``by_beat`` shows that beat fires."""
    ports = wiring.ports()
    if by_beat:
        ports.watches.beat_alive("beat", 2 * ports.times.health_interval_s)
    _have_done(checking.check_health(ports))
    _have_done(checking.watch_drilled(ports))


@app.task(name="degrade_to_safe_mode.probe", send_events=False)
def probe() -> None:
    """The recovery probe of every scope, each 2 s while anything is refused."""
    ports = wiring.ports()
    ports.watches.beat_alive("beat", 2 * ports.times.health_interval_s)
    _have_done(checking.probe_recovery(ports))
    _have_done(checking.watch_drilled(ports))


@app.task(name="degrade_to_safe_mode.enter")
def enter(scope: str, began: str, of: str, drill: dict[str, Any] | None = None) -> str:
    """Refuse everything new: the third check in a row has failed."""
    planned = Drill.stored(drill) if drill else None
    return result_of(modes.enter(wiring.ports(), Scope(scope), began, of, planned))


@app.task(name="degrade_to_safe_mode.leave")
def leave(scope: str, began: str, of: str) -> str:
    """Land what was kept, and admit again: a probe has succeeded."""
    try:
        told = modes.leave(wiring.ports(), Scope(scope), began, of)
    except OutageError as error:
        told = put_off(f"{error.code}: the next probe goes on")
    return result_of(told)


def _have_done(found: Transition | None) -> None:
    """Have a transition carried out; where no broker answers, the next check finds it again."""
    if found is not None:
        drill = found.drill.document() if found.drill else None
        more = {"drill": drill} if found.kind == "enter" else {}
        kwargs = {"scope": str(found.scope), "began": found.began, "of": found.of, **more}
        publish.transition(f"degrade_to_safe_mode.{found.kind}", kwargs)


class Degradation(BaseModel):
    """What sets the runbook off; the health check finds it, no operator types it in."""

    failure_reason: str = Field(
        description="the status of the failed call, in gRPC's words: `UNAVAILABLE`, "
        "`DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `DATA_LOSS`, `ABORTED`, `INTERNAL` …"
    )
    affected_tenants: list[AccountId] | None = Field(
        default=None, description="the tenants a drill names (`--tenant`); otherwise all tenants"
    )


MANUAL = Manual(
    number=4,
    title="Degrade to Safe Mode",
    purpose=(
        "While the store of truth cannot be relied upon, the system refuses all new work. Work "
        "under way ends, and the spool keeps its outcome. When the store is back, the system "
        "commits the spool and resumes, without a person."
    ),
    trigger=(
        "three health checks in a row have failed: every 10 s a document is read, committed and "
        "read back on the path of a receipt, in 2 s at most. Or the lease ran out, because no "
        "check came"
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
        (
            "the spool cannot be written either",
            "the process that knows the outcome dies, its message is not acknowledged, and the "
            "reaper ends the action by what Documents say",
        ),
        ("the spool cannot be drained or listed", "nothing is admitted; the next probe goes on"),
        (
            "a spooled commit's precondition does not hold",
            "it is set aside, with `receipt_conflict` and a critical alert",
        ),
        (
            "beat, the health worker or Memory is dead or silent",
            "the lease runs out within 33 s, and refuses by itself; the first receipt afterwards "
            "says who was silent",
        ),
        ("Memory was lost", "the same at once; it is rebuilt from Documents first"),
        (
            "an alert is not delivered",
            "it is tried again, from 5 s to 10 min apart; `ggen status` shows it",
        ),
    ),
    slis=contract.DEGRADE_TO_SAFE_MODE,
    receipts=("degraded_mode", "degraded_mode_cleared", "receipt_conflict", "alert_raised"),
    sequence=(
        "sequenceDiagram",
        "participant Check as Health check",
        "participant Documents",
        "participant Memory",
        "participant Spool as Spool (Objects)",
        "participant Alerts",
        "participant Ingress",
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
)
