"""``/healthz`` (alive), ``/readyz`` (missing parts), ``/metrics``."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from governor.errors import GovernorError, public_detail
from governor.health import Scope, silence
from ingress.routes import metrics
from ingress.state import Here, State
from ports import Ports
from ports.health import Trouble

router = APIRouter()
COMPONENTS = ("actions", "runbooks", "health", "beat", "pump")
_WORDS = {
    "actions": "no actions worker has carried out a canary lately",
    "runbooks": "no runbooks worker has carried out a canary lately",
    "health": "no health check has been carried out lately",
    "beat": "beat has not fired lately",
    "pump": "the signal pump has not polled lately",
}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Something is missing; it says what"}})
async def readyz(here: Here) -> Response:
    """Whether the stack does work now; 503 names the missing parts and since when it refuses."""
    missing, health = await run_in_threadpool(_look, here.ports, _needed(here))
    body = {"ready": not missing, "missing": missing, **health}
    return JSONResponse(body, 503 if missing else 200, {"Retry-After": "2"} if missing else {})


@router.get("/metrics")
async def exposition(here: Here) -> Response:
    """Prometheus text format."""

    def ask_memory() -> None:
        metrics.LEASE_S.set(here.ports.lease.lease_left_s())
        metrics.ORPHANS.set(here.ports.slots.orphans())
        metrics.UNSEALED.set(here.ports.unsealed.unsealed_count())
        metrics.SPOOLED.set(here.ports.modes.spooled())
        metrics.UNDELIVERED.set(len(here.ports.outbox.undelivered(10_000)))
        metrics.DEGRADED.set(here.ports.modes.health(Scope.ALL).is_degraded)
        measures = here.ports.measures
        metrics.MEASURED.know(measures.measured(), measures.states())
        metrics.IN_FLIGHT.set(here.ports.slots.held_count())
        depth, longest = here.ports.dispatch.queues(10_000)
        metrics.WAITING.set(depth)
        metrics.BUSY.set(here.ports.loads.busy())
        metrics.OLDEST_S.set(max((queue.oldest_s for queue in longest), default=0))
        for rank in range(metrics.LONGEST_LISTS):
            depth = longest[rank].depth if rank < len(longest) else 0
            metrics.LONGEST.labels(rank + 1).set(depth)

    if await run_in_threadpool(_fault, ask_memory):
        metrics.LEASE_S.set(0)  # without Memory nothing is admitted
        metrics.MEASURED.forget()
    missing, _ = await run_in_threadpool(_look, here.ports, _needed(here))
    metrics.READY.set(not missing)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _needed(here: State) -> list[str]:
    return [c for c in COMPONENTS if c != "pump" or here.settings.delivers_signals_itself]


def _look(ports: Ports, needed: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The missing parts, each with the reason, and what Memory knows of the system's health."""
    missing: dict[str, str] = {}
    health: dict[str, Any] = {"mode": "unknown"}
    if fault := _fault(lambda: ports.documents.get("health/probe")):
        missing["documents"] = fault
    if fault := _fault(ports.keys.signer):
        missing["keys"] = fault
    try:
        health = _health(ports)
        if health["mode"] == "degraded":
            missing["mode"] = (
                f"degraded since {health['since']}, {health['error_code']}: all that is new is "
                f"refused until the store is back, by itself"
            )
        elif health["mode"] == "refusing":
            why = health["error_code"] or _silence(ports)
            missing["lease"] = f"all that is new is refused until a health check succeeds: {why}"
        alive = ports.watches.alive(needed)
        missing |= {name: _WORDS[name] for name, is_alive in alive.items() if not is_alive}
        known = ports.troubles.troubles()
        missing |= {trouble.name: _public(trouble) for trouble in known if trouble.blocks}
        health["troubles"] = [
            {"name": t.name, "detail": _public(t), "since_s": round(t.since_s), "count": t.count}
            for t in known
        ]
    except GovernorError as error:
        missing["memory"] = f"{error.detail}: all that is new is refused"
    return missing, health


def _public(trouble: Trouble) -> str:
    """A trouble as anybody may read it: no place on the server."""
    if trouble.name.startswith("policy-unusable/"):
        return "a policy in force cannot be used; ggen policy list and the log say why"
    return trouble.detail


def _silence(ports: Ports) -> str:
    """Why no check lengthened the lease, although none has failed."""
    checked, beat, ingress = ports.watches.seen(["health", "beat", "ingress"]).values()
    if checked is None:
        return "none has been carried out yet"
    return silence(
        checked_ago_s=checked.ago_s,
        beat_seen_for_s=beat.streak_s if beat else 0,
        memory_seen_for_s=ingress.streak_s if ingress else 0,
        worker_up_s=inf,
    ).words


def _health(ports: Ports) -> dict[str, Any]:
    everybody, some = ports.modes.health(Scope.ALL), ports.modes.health(Scope.SOME)
    lease_s = ports.lease.lease_left_s()
    known = everybody if everybody.is_degraded or everybody.failures else some
    mode = "degraded" if everybody.is_degraded else "normal" if lease_s > 0 else "refusing"
    drill, unsent = ports.modes.drill(), ports.outbox.undelivered(1000)
    return {
        "mode": mode,
        "lease_s": round(lease_s, 1),
        "failed_checks": everybody.failures,
        "error_code": known.error_code,
        "since": known.failing_since,
        "refused": sum(everybody.refused.values()),
        "spooled": ports.modes.spooled(),
        "degraded_tenants": len(some.outage.accounts) if some.outage and some.is_degraded else 0,
        "drill": drill.fault if drill else "",
        "undelivered_alerts": len(unsent),
        "alert_fault": unsent[0].fault if unsent else "",
    }


def _fault(look: Callable[[], object]) -> str:
    try:
        look()
    except GovernorError as error:
        return public_detail(error)
    return ""
