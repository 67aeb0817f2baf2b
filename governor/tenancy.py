"""What an account has bought: events of the marketplace, the tenant, its entitlements."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, model_validator

from governor.fsm import EntitlementState, GovernorState
from governor.records import (
    AccountId,
    EntitlementId,
    EventId,
    OfEntitlement,
    PlanType,
    Record,
    Region,
    SemVer,
    Timestamp,
)

EventType = Literal[
    "entitlement.created",
    "entitlement.plan_changed",
    "entitlement.renewed",
    "entitlement.suspended",
    "entitlement.reinstated",
    "entitlement.cancellation_scheduled",
    "entitlement.cancellation_reverted",
    "entitlement.cancelled",
    "entitlement.deleted",
]
"""What a marketplace may tell of an entitlement (D4)."""


class MarketplaceEvent(OfEntitlement):
    """A marketplace webhook, validated and completed with defaults (D4)."""

    event_type: EventType = Field(description="what happened to the entitlement")
    event_id: EventId = Field(description="one event, one run; else the body's SHA-256")
    plan_type: PlanType = Field(description="its plan; else `starter`")
    region: Region = Field(description="of its resources; else the setting's")
    event_time: Timestamp = Field(description="when it happened, in UTC; else the arrival")
    is_timed_by_arrival: bool = Field(
        default=False, description="whether the event named no time of its own"
    )
    effective_at: Timestamp = Field(
        default="", description="when it takes effect, by the marketplace; else `event_time`"
    )
    cancellation_reason: str | None = Field(default=None, description="why, if cancelled")

    @model_validator(mode="before")
    @classmethod
    def _effective(cls, told: Any) -> Any:
        if isinstance(told, Mapping) and not told.get("effective_at"):
            return {**told, "effective_at": told.get("event_time")}
        return told

    def says_the_same(self, other: "MarketplaceEvent") -> bool:
        """Whether two deliveries tell the same event, however each was written."""
        apart = {"event_time", "is_timed_by_arrival"}
        if all(event.effective_at == event.event_time for event in (self, other)):
            apart.add("effective_at")
        if self.is_timed_by_arrival or other.is_timed_by_arrival:
            return self.model_dump(exclude=apart) == other.model_dump(exclude=apart)
        return self == other


class Tenant(Record):
    """``tenants/{account_id}``: the governor's stored state. One governor per account (D2)."""

    account_id: AccountId
    generation: int = Field(ge=1, description="2 and up after a resubscription")
    fsm_id: str
    topic: str
    state: GovernorState
    region: Region
    created_at: Timestamp
    created_by: str = Field(description="the run, and which attempt, that made this generation")


class Entitlement(OfEntitlement):
    """``tenants/{account_id}/entitlements/{entitlement_id}``: what this account bought."""

    plan_type: PlanType
    policy_version: SemVer
    region: Region
    state: EntitlementState
    operating_state: str
    concurrent_actions: int
    monthly_actions: int
    event_time: Timestamp = Field(description="of the newest event it reflects")
    run_id: str
    made_by: str = Field(default="", description="the run, and which attempt, that wrote it last")
    cancels_at: Timestamp | None = Field(
        default=None, description="when its scheduled cancellation takes effect"
    )
    refused_policy: str | None = Field(
        default=None, description="digest of the version that does not fit its own state"
    )
    policy_run: str | None = Field(
        default=None, description="the run by which it took its version, or refused one"
    )
    limited_by: str = Field(
        default="", description="the run that set its limit last; empty: its plan did"
    )
    scaling_month: str = Field(default="", description="the month that `scaling_usd` is of")
    scaling_usd: Decimal = Field(
        default=Decimal(0), description="what changes of its limit cost in that month"
    )
    is_counted: bool = Field(
        default=False, description="whether ``accepted_before`` is known; not of earlier releases"
    )
    accepted_before: int = Field(
        default=0, description="actions it had accepted when it was subscribed to the last time"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, stored: Any) -> Any:
        """They named the states of a governor."""
        if isinstance(stored, Mapping) and stored.get("state") in ("stable", "degraded"):
            return {**stored, "state": EntitlementState.ACTIVE}
        return stored


class Tombstone(Record):
    """``tenants/{account_id}/tombstones/{entitlement_id}``: cancelled before it was ever known.

    An event of it that is older changes nothing: events overtake each other.
    """

    entitlement_id: EntitlementId
    event_time: Timestamp
    run_id: str
