"""Reads: tenants, actions, receipts, runs. All need the bearer token (D22)."""

import base64
import binascii
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from fastapi import Query as Parameter

from governor import paths, quota
from governor.errors import InputError, OutageError
from governor.fsm import ENTITLEMENT_LIVE, GovernorState, derived_governor_state
from governor.quota import Verdict
from governor.records import AccountId
from governor.runs import Run
from governor.tenancy import Entitlement, Tenant
from ingress.problems import documented
from ingress.state import Here, require_token
from ledger.contracts import MODELS
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Document, Query, Where
from tasks.runs import operators

router = APIRouter(
    prefix="/v1", dependencies=[Depends(require_token)], responses=documented(401, 404, 422, 429)
)
_MAX_PAGE_BYTES = 1 << 20
LedgerId = Annotated[str, Path(pattern=r"^(_system|[A-Za-z0-9][A-Za-z0-9_-]{0,127})$")]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,127}$")]


@router.get("/tenants/{account_id}")
async def tenant(account_id: AccountId, here: Here) -> dict[str, Any]:
    """A governor: its state as derived from the actions in flight, its entitlements, their use."""
    return await here.read(_tenant, here.ports, account_id)


@router.get("/tenants/{account_id}/actions/{action_id}")
async def action(account_id: AccountId, action_id: Id, here: Here) -> dict[str, Any]:
    """One action as it is now."""
    path = paths.action_path(account_id, action_id)
    return await here.read(lambda: _found(here.ports, path).data)


@router.get("/tenants/{account_id}/receipts")
async def receipts(
    account_id: LedgerId,
    here: Here,
    operation: Annotated[str | None, Parameter(max_length=64)] = None,
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Parameter(max_length=1024)] = None,
) -> Response:
    """Receipts, newest first: each item is a receipt's own fields. A page is at most 1 MiB."""
    if operation is not None and operation not in MODELS:
        raise InputError("unknown-operation", f"operation is one of {', '.join(sorted(MODELS))}")
    after = _position(cursor) if cursor else None
    body = await here.read(_receipts, here.ports, account_id, operation, limit, after)
    return Response(body, media_type="application/json")


@router.get("/tenants/{account_id}/receipts/{receipt_id}")
async def receipt(account_id: LedgerId, receipt_id: Id, here: Here) -> dict[str, Any]:
    """One receipt as it is stored: the signed text, its signature and the key's id."""
    path = paths.receipt_path(account_id, receipt_id)
    return await here.read(lambda: _found(here.ports, path).data)


@router.get("/tenants/{account_id}/receipts/{receipt_id}/text")
async def text(account_id: LedgerId, receipt_id: Id, here: Here) -> dict[str, Any]:
    """The free text a receipt names by its SHA-256; 404 where there is none."""
    path = paths.text_path(account_id, receipt_id)
    found: dict[str, Any] = await here.read(lambda: _found(here.ports, path).data)
    return found


@router.get("/runs/{run_id}")
async def run(run_id: Id, here: Here) -> dict[str, Any]:
    """One run and its journal; the webhook's body is not shown."""
    found = await here.read(_found, here.ports, paths.run_path(run_id))
    return operators.shown(Run.stored(found.data))


def _tenant(ports: Ports, account_id: str) -> dict[str, Any]:
    stored = Tenant.stored(_found(ports, paths.tenant_path(account_id)).data)
    found = ports.documents.scan(Query(f"tenants/{account_id}/entitlements", limit=1000))
    entitlements = [Entitlement.stored(d.data) for d in found]
    month = quota.month_of(ports.clock.now())
    state: str = stored.state
    in_flight: int | None = None
    used: dict[str, int] = {}
    try:
        in_flight = ports.governors.in_flight(account_id, [e.entitlement_id for e in entitlements])
        used = {
            e.entitlement_id: ports.governors.used(account_id, e.entitlement_id, month)
            for e in entitlements
        }
        if stored.state is GovernorState.STABLE:
            state = derived_governor_state(in_flight, ports.governors.rolling_back(account_id))
            if ports.lease.standing(account_id) is Verdict.DEGRADED:
                state = GovernorState.DEGRADED
    except OutageError:
        pass  # the stored state is still true; derived values are left out
    return {
        **stored.document(),
        "state": state,
        "in_flight_actions": in_flight,
        "in_flight_action_limit": sum(
            e.concurrent_actions for e in entitlements if e.state in ENTITLEMENT_LIVE
        ),
        "entitlements": [
            {**e.document(), "actions_this_month": used.get(e.entitlement_id)} for e in entitlements
        ],
    }


def _receipts(
    ports: Ports, account_id: str, operation: str | None, limit: int, after: tuple[str, str] | None
) -> str:
    """A page as JSON text: the signed texts as they are."""
    page = ports.documents.scan(
        Query(
            f"tenants/{account_id}/receipts",
            where=[Where("operation", "==", operation)] if operation else [],
            order_by="timestamp",
            descending=True,
            after=after,
            limit=limit,
        )
    )
    texts: list[str] = []
    size_bytes = 0
    for document in page:
        stored = SignedReceipt.stored(document.data)
        stored.fields()  # a corrupted text raises, and is no part of an answer
        size_bytes += len(stored.payload)
        if texts and size_bytes > _MAX_PAGE_BYTES:
            break
        texts.append(stored.payload)
    is_last = len(texts) == len(page) < limit
    following = None if is_last or not texts else _cursor(page[len(texts) - 1])
    return f'{{"items":[{",".join(texts)}],"next_cursor":{json.dumps(following)}}}'


def _found(ports: Ports, path: str) -> Document:
    found = ports.documents.get(path)
    if found is None:
        raise InputError("not-found", f"there is no {path}")
    return found


def _cursor(last: Document) -> str:
    text = json.dumps([last.data["timestamp"], last.path])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _position(cursor: str) -> tuple[str, str]:
    try:
        at, path = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if not (isinstance(at, str) and isinstance(path, str)):
            raise ValueError("not two strings")
        at.encode(), path.encode()
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InputError("bad-cursor", "cursor is not one that was given out") from None
    return at, path
