"""``POST /v1/webhooks/marketplace``: a signed event becomes a run, and its receipt the answer."""

import asyncio
import contextlib
import time

from fastapi import APIRouter, Request, Response

from governor import paths
from governor.errors import GovernorError, InputError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.quota import Verdict
from governor.runs import Run
from governor.tenancy import MarketplaceEvent
from ingress import signature
from ingress.bodies import MarketplaceWebhook, parse, raw_body
from ingress.problems import documented, problem, signed_with, status_of
from ingress.routes import metrics
from ingress.state import Here, State
from ledger.receipt import SignedReceipt
from ports import Ports
from tasks import marketplace as intake
from tasks.actions.admit import refusal
from tasks.receipts.refusals import tally_of

router = APIRouter()
_LOOK_EVERY_S = 0.5
"""How often a waiter looks for itself, in case a notice was missed."""

_NOTHING_BEGAN = (Verdict.DEGRADED, Verdict.NO_LEASE, "memory-unavailable")
"""Refusals of what would be served in better times; counted like the others."""

_SCHEMA: dict[str, object] = {
    "parameters": signed_with(
        "X-Entitlement-Signature", "webhook-id", "webhook-timestamp", "webhook-signature"
    ),
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": MarketplaceWebhook.model_json_schema()}},
    },
}


@router.post(
    "/v1/webhooks/marketplace",
    openapi_extra=_SCHEMA,
    responses={
        202: {"description": "Under way; see Location"},
        **documented(400, 409, 413, 422, 429, 503),
    },
)
async def marketplace(request: Request, here: Here) -> Response:
    """Verify, start or find the run of the event, and answer with its receipt (D4-D6)."""
    try:
        body = await raw_body(request)
        try:
            signature.check_webhook(request.headers, body, here.ports.secrets.webhook_secrets())
        except InputError as error:
            raise await here.failures.told(request, error) from None
        webhook = parse(MarketplaceWebhook, body)
        event = webhook.event(body, here.ports.clock.now(), here.settings.default_region)
        run_id = paths.run_id(event.event_id)
        async with here.waiters.expect(run_id) as ended:
            run = await here.webhook_work(_begin, here.ports, event, body)
            give_up_at = time.monotonic() + here.settings.webhook_wait_s
            while run.state in RUN_OPEN and time.monotonic() < give_up_at:
                await _wait(ended, min(_LOOK_EVERY_S, give_up_at - time.monotonic()))
                run = await here.waiters.share(run_id, lambda: _load(here.ports, run_id))
        if run.state in RUN_OPEN or run.receipt_id is None:
            return _accepted(run)
        stored = await here.waiters.share(run.receipt_id, lambda: _receipt_of(here.ports, run))
        return _ended(run, stored)
    except GovernorError as error:
        await _count(here, error)
        raise


def _begin(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    standing = ports.lease.standing(event.account_id)
    if standing is not Verdict.ADMITTED:
        raise refusal(standing, month_ends_in_s=0)
    return intake.begin(ports, event, body)


async def _wait(ended: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), max(0.0, seconds))
    ended.clear()


def _load(ports: Ports, run_id: str) -> Run:
    found = ports.documents.get(paths.run_path(run_id))
    if found is None:
        raise OutageError("run-vanished", "the run of this event cannot be read; repeat")
    return Run.stored(found.data)


def _receipt_of(ports: Ports, run: Run) -> SignedReceipt:
    found = ports.documents.get(paths.receipt_path(run.account_id, str(run.receipt_id)))
    if found is None:
        raise OutageError("receipt-unreadable", "the event's receipt cannot be read; repeat")
    return SignedReceipt.stored(found.data)


def _accepted(run: Run) -> Response:
    metrics.WEBHOOKS.labels("accepted").inc()
    body = f'{{"run_id":"{run.run_id}","state":"{run.state}"}}'
    location = {"Location": f"/v1/runs/{run.run_id}"}
    return Response(body, 202, location, media_type="application/json")


def _ended(run: Run, stored: SignedReceipt) -> Response:
    metrics.WEBHOOKS.labels(run.state).inc()
    if run.state is RunState.COMPLETE:
        return Response(stored.payload, 200, media_type="application/json")
    for_good = run.state is not RunState.FAILED
    return problem(
        422 if for_good else 503,
        "entitlement-failed",
        f"the event was refused, and nothing of it is left: {run.error_detail}",
        retry_after_s=None if for_good else 5,
        receipt=stored.fields(),
    )


async def _count(here: State, error: GovernorError) -> None:
    metrics.WEBHOOKS.labels("rejected").inc()
    if status_of(error) < 500 or error.code in _NOTHING_BEGAN:
        await here.refusals.add(tally_of("webhook_rejected"), error.code)
