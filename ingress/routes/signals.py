"""Signals in: from the tenant itself, or pushed from its topic (D8)."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT, AccountId
from ingress.bodies import (
    MAX_BODY_BYTES,
    PushEnvelope,
    SignalBody,
    parse,
    raw_body,
    read_bounded,
)
from ingress.problems import documented, signed_with, status_of
from ingress.routes import metrics
from ingress.state import Here, State, require_pusher
from ports import Ports
from tasks.actions.admit import Signal
from tasks.receipts.commit import commit_once, explained
from tasks.receipts.refusals import tally_of

router = APIRouter()
_FOREIGN = (
    "unknown-tenant",
    "bad-signature",
    "missing-signature",
    "body-too-large",
    "too-many-failures",
    "body-abandoned",
)
"""Refusals counted on the platform's ledger: anybody can provoke them, for any account."""

_NOT_SIGNED = ("missing-signature", "bad-signature")

_COUNTED = (Verdict.DEGRADED, Verdict.NO_LEASE, Verdict.DRAINING)
"""Outages' refusals that admission counted itself, and one that is none of theirs."""


def _schema(model: type[SignalBody | PushEnvelope], *headers: str) -> dict[str, object]:
    content = {
        "application/json": {"schema": model.model_json_schema(ref_template="#/$defs/{model}")}
    }
    return {
        "parameters": signed_with(*headers),
        "requestBody": {"required": True, "content": content},
    }


@router.post(
    "/v1/tenants/{account_id}/signals",
    status_code=202,
    openapi_extra=_schema(SignalBody, "X-Signature"),
    responses=documented(400, 403, 404, 409, 413, 422, 429, 503),
)
async def from_tenant(account_id: AccountId, request: Request, here: Here) -> Response:
    """Accept a signal signed with the tenant's own key; 202 only once it is stored."""
    try:
        body = await raw_body(request)
        try:
            generation = await here.tenant_keys.check(account_id, request.headers, body)
            action_id = await _submit(here, account_id, body, generation)
        except InputError as error:
            if error.code not in _NOT_SIGNED:
                raise
            raise await here.failures.told(request, error) from None
    except GovernorError as error:
        await _count(here, account_id, error)
        raise
    metrics.SIGNALS.labels("accepted").inc()
    # The answer of the admission, the same for ever; the action's present state is at Location.
    location = {"Location": f"/v1/tenants/{account_id}/actions/{action_id}"}
    return JSONResponse({"action_id": action_id, "state": "pending"}, 202, location)


@router.post(
    "/v1/pubsub/signals",
    status_code=204,
    responses={
        200: {"description": "Never to succeed: acknowledged, and receipted"},
        **documented(400, 401, 403, 409, 413, 422, 429, 503),
    },
)
async def from_topic(request: Request, here: Here) -> Response:
    """Accept a pushed message: 2xx acknowledges it, anything else has it delivered again."""
    try:
        envelope = await _envelope(request, here)
    except GovernorError as error:
        await _count(here, SYSTEM_ACCOUNT, error)
        raise
    account_id = envelope.account_id
    try:
        asked = _signal(account_id, envelope.signal())
        here.listener.refuse_if_stale()
        await here.signals.submit(asked)
    except GovernorError as error:
        if not _is_hopeless(error):
            await _count(here, account_id, error)
            raise
        await run_in_threadpool(_dead_letter, here.ports, envelope, error)
        return Response(status_code=200)
    metrics.SIGNALS.labels("accepted").inc()
    return Response(status_code=204)


async def _submit(here: State, account_id: str, body: bytes, generation: int) -> str:
    """The action of a signal that its tenant has signed."""
    here.failures.check_tenant(account_id)
    here.listener.refuse_if_stale()
    try:
        asked = _signal(account_id, parse(SignalBody, body), generation)
        return await here.signals.submit(asked)
    except GovernorError as error:
        # Who holds a former key is not this tenant any more; a suspended one may be reinstated.
        if error.code not in (Verdict.STALE_KEY, Verdict.SUSPENDED):
            here.failures.note_tenant(account_id, error)
        raise


async def _envelope(request: Request, here: State) -> PushEnvelope:
    await require_pusher(request, here)
    return parse(PushEnvelope, await read_bounded(request, MAX_BODY_BYTES * 2))


def _signal(account_id: str, body: SignalBody, generation: int | None = None) -> Signal:
    return Signal(
        account_id,
        body.signal_id,
        body.type,
        body.sku_id,
        body.payload,
        body.entitlement_id,
        generation,
    )


def _is_hopeless(error: GovernorError) -> bool:
    """Whether no repetition can ever succeed.

    An unknown tenant may still be being provisioned, and a suspended one may be reinstated.
    """
    if isinstance(error, DeniedError):
        return status_of(error) == 403 and error.code != Verdict.SUSPENDED
    return isinstance(error, (InputError, ConflictError)) and error.code != "unknown-tenant"


def _dead_letter(ports: Ports, envelope: PushEnvelope, error: GovernorError) -> None:
    message_id = envelope.message.messageId
    proofs = explained(
        ports,
        "signal_dead_lettered",
        envelope.account_id,
        message_id,
        error.detail,
        status="failed",
        message_id=message_id,
        error_code=error.code,
    )
    try:
        commit_once(ports, proofs)
    except ConflictError:
        pass  # delivered and receipted before
    metrics.SIGNALS.labels("dead-lettered").inc()


async def _count(here: State, account_id: str, error: GovernorError) -> None:
    metrics.SIGNALS.labels(error.code).inc()
    ledger = SYSTEM_ACCOUNT if error.code in _FOREIGN else account_id
    is_busy = error.code == "busy"
    by_store = isinstance(error, OutageError) and error.code not in _COUNTED and not is_busy
    refused_for = account_id if by_store else ""
    tally = tally_of("signals_refused", ledger)
    await here.refusals.add(tally, error.code, refused_for, is_deferred=is_busy)
