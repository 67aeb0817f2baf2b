"""``/healthz`` (alive), ``/readyz`` (what is missing), ``/metrics``."""

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from governor.errors import GovernorError, public_detail
from ingress import metrics
from ingress.state import Here
from ports import Ports

router = APIRouter()
COMPONENTS = ("actions", "runbooks", "health", "beat", "pump")
_WORDS = {
    "actions": "no actions worker has carried out a canary lately",
    "runbooks": "no runbooks worker has carried out a canary lately",
    "health": "no health check has been carried out lately",
    "beat": "beat has not fired lately",
    "pump": "the signal pump has not polled lately",
}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "Something is missing; it says what"}})
async def readyz(here: Here) -> Response:
    """Whether work would be done now; 503 names what is missing and since when it is refused."""
    needed = [c for c in COMPONENTS if c != "pump" or here.settings.delivers_signals_itself]
    missing = await run_in_threadpool(_missing, here.ports, needed)
    metrics.READY.set(not missing)
    body = {"ready": not missing, "missing": missing}
    return JSONResponse(body, 503 if missing else 200, {"Retry-After": "2"} if missing else {})


@router.get("/metrics")
async def exposition(here: Here) -> Response:
    """Prometheus text format."""

    def ask_memory() -> None:
        metrics.LEASE_S.set(here.ports.memory.lease_left_s())
        metrics.ORPHANS.set(here.ports.memory.orphans())
        metrics.UNSEALED.set(here.ports.memory.unsealed_count())

    await run_in_threadpool(_fault, ask_memory)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _missing(ports: Ports, needed: Sequence[str]) -> dict[str, str]:
    missing: dict[str, str] = {}
    if fault := _fault(lambda: ports.documents.get("health/probe")):
        missing["documents"] = fault
    if fault := _fault(ports.keys.signer):
        missing["keys"] = fault
    try:
        if ports.memory.lease_left_s() <= 0:
            missing["lease"] = "no health check has succeeded lately: new actions are refused"
        alive = ports.memory.alive(needed)
        missing |= {name: _WORDS[name] for name, is_alive in alive.items() if not is_alive}
    except GovernorError as error:
        missing["memory"] = error.detail
    return missing


def _fault(look: Callable[[], object]) -> str:
    try:
        look()
    except GovernorError as error:
        return public_detail(error)
    return ""
