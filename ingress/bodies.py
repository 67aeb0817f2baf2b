"""Bodies in: bounded, strict JSON, each field with a type, a pattern and a bound (D4, D8)."""

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)
from pydantic import field_validator as validator
from starlette.requests import ClientDisconnect

from governor.errors import InputError
from governor.records import AccountId, EntitlementId, EventId, PlanType, Region, SignalType, SkuId
from governor.tenancy import EventType, MarketplaceEvent
from governor.times import timestamp
from ingress.problems import FieldsError
from ledger import canonical

MAX_BODY_BYTES = 64 * 1024
MAX_PAYLOAD_DEPTH = 32
_MAX_AHEAD = timedelta(minutes=5)
_LONGEST_TERM = timedelta(days=3653)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

M = TypeVar("M", bound=BaseModel)
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}")
Text = Annotated[str, Field(max_length=1024)]


def _rfc3339(value: Any) -> Any:
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError("must be an RFC 3339 date and time with an offset")
    return value


EventTime = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]


class MarketplaceWebhook(BaseModel):
    """``POST /v1/webhooks/marketplace``; other members are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: EventType
    account_id: AccountId
    sku_id: SkuId
    entitlement_id: EntitlementId | None = Field(default=None, description="else the sku_id")
    event_id: EventId | None = Field(default=None, description="else derived from the body")
    event_time: EventTime | None = Field(default=None, description="else the arrival")
    effective_at: EventTime | None = Field(
        default=None, description="when it takes effect, by the marketplace; else event_time"
    )
    plan_type: PlanType = "starter"
    region: Region | None = Field(default=None, description="else the setting's")
    cancellation_reason: Text | None = None

    def event(
        self, body: bytes, now: datetime, latest: datetime, default_region: str
    ) -> MarketplaceEvent:
        """The event, completed.

        Raises:
            InputError: ``event_time`` lies before 2000, or more than 5 minutes after ``latest``, so
                that everything after it would look old; or ``effective_at`` is out of bounds.
        """
        if self.event_time and not _EARLIEST <= self.event_time <= latest + _MAX_AHEAD:
            is_ahead = self.event_time > latest
            fault = "lies in the future" if is_ahead else "lies before the year 2000"
            raise FieldsError([{"field": "event_time", "fault": fault}])
        if self.effective_at and not _EARLIEST <= self.effective_at <= now + _LONGEST_TERM:
            fault = "lies before the year 2000, or more than ten years ahead"
            raise FieldsError([{"field": "effective_at", "fault": fault}])
        return MarketplaceEvent(
            event_type=self.event_type,
            event_id=self.event_id or f"sha256-{hashlib.sha256(body).hexdigest()}",
            account_id=self.account_id,
            entitlement_id=self.entitlement_id or self.sku_id,
            sku_id=self.sku_id,
            plan_type=self.plan_type,
            region=self.region or default_region,
            event_time=timestamp(self.event_time or now),
            is_timed_by_arrival=self.event_time is None,
            effective_at=timestamp(self.effective_at or self.event_time or now),
            cancellation_reason=self.cancellation_reason,
        )


class SignalBody(BaseModel):
    """``POST /v1/tenants/{account_id}/signals``, and the data of a pushed message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signal_id: EventId
    type: SignalType
    entitlement_id: EntitlementId | None = Field(
        default=None, description="when several entitlements map the type"
    )
    sku_id: SkuId | None = Field(default=None, description="the same, if one is of this product")
    payload: dict[str, JsonValue] = Field(default_factory=dict)

    @validator("payload")
    @classmethod
    def _shallow(cls, payload: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if _is_deeper(payload, MAX_PAYLOAD_DEPTH):
            raise ValueError(f"nested deeper than {MAX_PAYLOAD_DEPTH} levels")
        return payload


class PushMessage(BaseModel):
    """A Pub/Sub message as push delivers it."""

    model_config = ConfigDict(extra="ignore")

    data: str = Field(default="", max_length=MAX_BODY_BYTES * 2)
    messageId: str = Field(min_length=1, max_length=256)  # Pub/Sub's own spelling


class PushEnvelope(BaseModel):
    """``POST /v1/pubsub/signals``: Pub/Sub's push format."""

    model_config = ConfigDict(extra="ignore")

    message: PushMessage
    subscription: str = Field(
        max_length=512,
        pattern=r"^projects/[^/]+/subscriptions/tenants\.[A-Za-z0-9][A-Za-z0-9_-]{0,127}\.signals$",
    )

    @property
    def account_id(self) -> str:
        """The tenant: from the subscription, never from attributes (D8)."""
        return self.subscription.rsplit("/", 1)[1].split(".")[1]

    def signal(self) -> SignalBody:
        """The signal in the message's data.

        Raises:
            InputError: it can never be understood.
        """
        try:
            data = base64.b64decode(self.message.data, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("not-base64", "the message's data is not base64") from None
        return parse(SignalBody, data)


async def raw_body(request: Request) -> bytes:
    """The raw body, never more than ``MAX_BODY_BYTES`` of it in memory.

    Raises:
        InputError: ``body-too-large``.
    """
    return await read_bounded(request, MAX_BODY_BYTES)


async def read_bounded(request: Request, limit_bytes: int) -> bytes:
    """The raw body up to a limit. Raises InputError ``body-too-large`` or ``body-abandoned``."""
    declared = request.headers.get("content-length", "0")
    too_large = InputError("body-too-large", f"a body is at most {limit_bytes} bytes")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise too_large
    except ClientDisconnect:
        raise InputError("body-abandoned", "the body did not come to its end in time") from None
    return bytes(body)


def parse(model: type[M], body: bytes) -> M:
    """The body as ``model``.

    Raises:
        InputError: not strict JSON (400).
        FieldsError: fields out of bounds, each listed (422); values are not echoed.
    """
    try:
        return model.model_validate(canonical.loads(body))
    except ValidationError as error:
        raise FieldsError(
            [
                {"field": ".".join(map(str, f["loc"])) or "body", "fault": f["msg"]}
                for f in error.errors(include_url=False, include_input=False)[:50]
            ]
        ) from None


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels == 0:
        return True
    return any(
        _is_deeper(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value)
    )
