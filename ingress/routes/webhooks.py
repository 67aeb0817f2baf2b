"""``POST /v1/webhooks/marketplace``: a signed event becomes a run, and its receipt the answer."""

from fastapi import APIRouter, Request, Response

from governor import paths
from governor.errors import GovernorError, InputError
from governor.fsm import RunState
from governor.quota import Verdict, refusal
from governor.runs import Run
from governor.tenancy import MarketplaceEvent
from ingress import signature
from ingress.bodies import MarketplaceWebhook, parse, raw_body
from ingress.outcomes import receipt_of, settled
from ingress.problems import documented, problem, signed_with, status_of
from ingress.routes import metrics
from ingress.state import Here, State
from ledger.receipt import SignedReceipt
from ports import Ports
from tasks import marketplace as intake
from tasks.receipts.refusals import tally_of

router = APIRouter()
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
        now = here.ports.clock.now()
        # A machine that stood still is behind until it is restarted; its clock knows better.
        latest = max(now, here.ports.clock.machine())
        event = webhook.event(body, now, latest, here.settings.default_region)
        run_id = paths.run_id(event.event_id)
        run = await settled(here, run_id, lambda: _begin(here.ports, event, body))
        stored = await receipt_of(here, run)
        return _ended(run, stored) if stored else _accepted(run)
    except GovernorError as error:
        await _count(here, error)
        raise


def _begin(ports: Ports, event: MarketplaceEvent, body: bytes) -> Run:
    standing = ports.lease.standing(event.account_id)
    if standing is not Verdict.ADMITTED:
        raise refusal(standing, month_ends_in_s=0)
    return intake.begin(ports, event, body)


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
