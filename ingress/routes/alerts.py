"""``POST /v1/alerts/monitoring``: Cloud Monitoring says that a topic lags; it is looked at now.

A hint, never a value: an incident is minutes old, and the lag is read again.
https://cloud.google.com/monitoring/support/notification-options#webhooks
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from governor.errors import InputError, OutageError
from governor.paths import account_of_topic
from ingress import signature
from ingress.bodies import MAX_BODY_BYTES, parse, read_bounded
from ingress.problems import documented
from ingress.state import Here
from ports import Ports
from tasks.runbooks.scale import pressed

router = APIRouter()
_KNOWN_FOR_S = 24 * 3600
_Id = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class IncidentResource(_Told):
    """Of which subscription it speaks."""

    labels: dict[str, str] = Field(default_factory=dict, max_length=32)


class Incident(_Told):
    """What of an incident is read."""

    incident_id: _Id
    state: Literal["open", "closed"]
    resource: IncidentResource = IncidentResource()


class MonitoringAlert(_Told):
    """Cloud Monitoring's webhook, version 1.2; other members are ignored."""

    version: Literal["1.2"]
    incident: Incident


@router.post(
    "/v1/alerts/monitoring",
    status_code=204,
    openapi_extra={
        "security": [{"basic": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": MonitoringAlert.model_json_schema(ref_template="#/$defs/{model}")
                }
            },
        },
    },
    responses=documented(400, 401, 404, 413, 422, 429, 503),
)
async def from_monitoring(request: Request, here: Here) -> Response:
    """Look at a tenant's limit now; a repeated or closed incident, changes nothing."""
    given = request.headers.get("authorization")
    if not signature.is_password(given, here.ports.secrets.monitoring_token()):
        refused = InputError(
            "unauthorized", "alerts need basic authentication with secrets/monitoring.token"
        )
        raise await here.failures.told(request, refused)
    told = parse(MonitoringAlert, await read_bounded(request, MAX_BODY_BYTES)).incident
    account_id = account_of_topic(told.resource.labels.get("subscription_id", ""))
    if account_id is None:
        raise InputError("unknown-tenant", "resource.labels.subscription_id is no tenant's topic")
    if told.state == "open":
        await here.webhook_work(_look_now, here.ports, account_id, told.incident_id)
    return Response(status_code=204)


def _look_now(ports: Ports, account_id: str, incident_id: str) -> None:
    tick = f"incident/{incident_id}"
    if not ports.watches.claim_tick(tick, _KNOWN_FOR_S):
        return
    try:
        pressed.press_all(ports, account_id)
    except (OutageError, InputError):
        ports.watches.drop_tick(tick)  # it may come again
        raise
