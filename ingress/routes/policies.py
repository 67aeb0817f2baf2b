"""``POST /v1/policies``: a signed policy comes into force, or is skipped; ``GET``: who is on which.

The caller's ``compatibility_check`` is noted, and never believed (D26).
"""

import logging
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from governor import policy
from governor.errors import InputError
from governor.fsm import RunState
from governor.policy import MAX_POLICY_BYTES
from governor.records import SemVer
from governor.runs import Run
from ingress import signature
from ingress.bodies import MAX_BODY_BYTES, parse, read_bounded
from ingress.outcomes import receipt_of, settled
from ingress.problems import documented, problem, signed_with
from ingress.state import Here, require_pusher, require_token
from ledger import canonical
from ledger.receipt import SignedReceipt
from ports import Ports
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade import comparison, incoming, rollout
from tasks.runbooks.upgrade.comparison import PolicyUpgrade

router = APIRouter()
_LOG = logging.getLogger("ggen.ingress")
_ENVELOPE_BYTES = 32 * 1024
_Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]


class PolicyBody(BaseModel):
    """What Runbook 2 is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_policy: dict[str, JsonValue]
    policy_version: SemVer
    compatibility_check: bool | None = Field(default=None, description="noted, never believed")
    policy_signature: str = Field(
        default="", max_length=16_384, description="of the policy, where GGEN_POLICY_KEYS are set"
    )


@router.post(
    "/v1/policies",
    openapi_extra={
        "parameters": signed_with(
            "X-Signature", "webhook-id", "webhook-timestamp", "webhook-signature"
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": PolicyBody.model_json_schema()}},
        },
    },
    responses={
        202: {"description": "Under way; see Location"},
        **documented(400, 409, 413, 422, 429, 503),
    },
)
async def publish(request: Request, here: Here) -> Response:
    """Register a version, and bring it into force in every governor of its plan."""
    body = await read_bounded(request, MAX_POLICY_BYTES + _ENVELOPE_BYTES)
    try:
        signature.check_policy(request.headers, body, here.ports.secrets.policy_secrets())
    except InputError as error:
        raise await here.failures.told(request, error) from None
    told = parse(PolicyBody, body)
    policy.refuse_if_too_large(_policy_in(body, told))
    began = await here.webhook_work(_begin, here.ports, told)
    if began is None:
        return Response(
            canonical.dumps({"policy_version": told.policy_version, "outcome": "in-force"}),
            media_type="application/json",
        )
    run = await settled(here, began.run_id, lambda: began)
    stored = await receipt_of(here, run)
    if stored is None:
        location = {"Location": f"/v1/runs/{run.run_id}"}
        content = canonical.dumps({"run_id": run.run_id, "state": run.state.value})
        return Response(content, 202, location, media_type="application/json")
    return _ended(run, stored)


class BucketMessage(BaseModel):
    """What Cloud Storage says of an object: all in the attributes (its notification's format)."""

    model_config = ConfigDict(extra="ignore")

    attributes: dict[str, str] = Field(default_factory=dict, max_length=32)


class BucketPush(BaseModel):
    """``POST /v1/pubsub/policies``: Pub/Sub's push format."""

    model_config = ConfigDict(extra="ignore")

    message: BucketMessage


@router.post(
    "/v1/pubsub/policies", status_code=204, responses=documented(400, 401, 403, 413, 422, 429, 503)
)
async def from_bucket(request: Request, here: Here) -> Response:
    """Take a policy that was put into the registry's bucket; 2xx acknowledges the notification."""
    await require_pusher(request, here)
    told = parse(BucketPush, await read_bounded(request, MAX_BODY_BYTES)).message.attributes
    name, generation = told.get("objectId", ""), told.get("objectGeneration", "")
    if told.get("eventType") != "OBJECT_FINALIZE" or not name:
        return Response(status_code=204)
    bucket = urlsplit(here.settings.objects_url)
    if bucket.scheme == "gs" and told.get("bucketId") != bucket.netloc:
        _LOG.error("a notification of bucket %s, which is not the registry", told.get("bucketId"))
        return Response(status_code=204)
    await here.webhook_work(incoming.take, here.ports, name, generation)
    return Response(status_code=204)


@router.get(
    "/v1/policies/{sku_id}/{plan_type}",
    dependencies=[Depends(require_token)],
    responses=documented(401, 404, 422, 429),
)
async def status(sku_id: _Name, plan_type: _Name, here: Here) -> dict[str, Any]:
    """Which version is in force, and how many governors are on which."""
    return await here.read(rollout.status, here.ports, sku_id, plan_type)


def _policy_in(body: bytes, told: PolicyBody) -> int:
    """How many bytes of a body its policy takes up, with the white space around it."""
    around = canonical.dumps({**told.model_dump(exclude_unset=True), "new_policy": 0})
    return len(body) - len(around) + 1


def _begin(ports: Ports, told: PolicyBody) -> Run | None:
    document = canonical.dumps(told.new_policy)
    if told.new_policy.get("policy_version") != told.policy_version:
        raise InputError("version-differs", "policy_version is not that of new_policy")
    new = comparison.register(ports, document, told.policy_signature).policy
    asked = PolicyUpgrade(
        sku_id=new.sku_id,
        plan_type=new.plan_type,
        policy_version=new.policy_version,
        asked_check=told.compatibility_check,
    )
    return upgrade_policy.ask(ports, asked)


def _ended(run: Run, stored: SignedReceipt) -> Response:
    if run.state is RunState.COMPLETE and stored.operation == "policy_broadcast":
        return Response(stored.payload, media_type="application/json")
    if run.state is RunState.COMPLETE:
        why = (
            "the version was skipped as incompatible; the one in force stays. What it breaks: "
            "ggen policy upgrade FILE --dry-run"
        )
        return problem(409, "not-compatible", why, receipt=stored.fields())
    detail = run.error_detail or "the version did not come into force"
    return problem(422, run.error_code or "policy-refused", detail, receipt=stored.fields())
