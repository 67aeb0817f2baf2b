"""What an account has bought: events of the marketplace, the tenant, its entitlements."""

from typing import Literal

from pydantic import Field

from governor.fsm import GovernorState
from governor.records import (
    AccountId,
    EventId,
    OfEntitlement,
    PlanType,
    Record,
    Region,
    SemVer,
    Timestamp,
)


class MarketplaceEvent(OfEntitlement):
    """A marketplace webhook, validated and completed with defaults (D4)."""

    event_type: Literal[
        "entitlement.created", "entitlement.plan_changed", "entitlement.cancelled"
    ] = Field(description="what happened to the entitlement")
    event_id: EventId = Field(description="one event, one run; else the body's SHA-256")
    plan_type: PlanType = Field(description="its plan; else `starter`")
    region: Region = Field(description="of its resources; else the setting's")
    event_time: Timestamp = Field(description="when it happened, in UTC; else the arrival")
    is_timed_by_arrival: bool = Field(
        default=False, description="whether the event named no time of its own"
    )
    cancellation_reason: str | None = Field(default=None, description="why, if cancelled")

    def says_the_same(self, other: "MarketplaceEvent") -> bool:
        """Whether two deliveries tell the same event, however each was written."""
        apart = {"event_time", "is_timed_by_arrival"}
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
    state: GovernorState
    operating_state: str
    concurrent_actions: int
    monthly_actions: int
    event_time: Timestamp
    run_id: str
    made_by: str = Field(default="", description="the run, and which attempt, that wrote it last")
