"""``/healthz`` (alive), ``/readyz`` (missing parts), ``/metrics``."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from governor.health import Scope
from ingress.routes import metrics
from ingress.state import Here, State
from tasks.health import readiness
from tasks.health.readiness import fault_of

router = APIRouter()


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Something is missing; it says what"}})
async def readyz(here: Here) -> Response:
    """Whether the stack does work now; 503 names the missing parts and since when it refuses."""
    missing, health = await run_in_threadpool(_look, here)
    body = {"ready": not missing, "missing": missing, **health}
    return JSONResponse(body, 503 if missing else 200, {"Retry-After": "2"} if missing else {})


@router.get("/metrics")
async def exposition(here: Here) -> Response:
    """Prometheus text format."""

    def ask_memory() -> None:
        metrics.LEASE_S.set(here.ports.lease.lease_left_s())
        metrics.ORPHANS.set(here.ports.slots.orphans())
        metrics.UNSEALED.set(here.ports.unsealed.unsealed_count())
        metrics.SEALED_AGO_S.set(here.ports.unsealed.sealed_ago_s())
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

    if await run_in_threadpool(fault_of, ask_memory):
        metrics.LEASE_S.set(0)  # without Memory nothing is admitted
        metrics.MEASURED.forget()
    missing, _ = await run_in_threadpool(_look, here)
    metrics.READY.set(not missing)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _look(here: State) -> tuple[dict[str, str], dict[str, Any]]:
    return readiness.look(here.ports, has_pump=here.settings.delivers_signals_itself)
