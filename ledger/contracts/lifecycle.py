"""Contracts of entitlements: subscribed, changed, suspended, renewed (Runbooks 1 and 6)."""

from typing import Annotated, Literal

from pydantic import Field

from governor.records import EntitlementId, PlanType, Region, SemVer, SkuId, Timestamp
from ledger.contracts.base import (
    Code,
    Count,
    Detail,
    OfRun,
    QuotaTerms,
    Resources,
    Second,
    Sha256Hex,
    Word,
)


class EntitlementActiveV1(OfRun):
    """Runbooks 1 and 6, the union of both contracts (D3)."""

    operation: Literal["entitlement_active"]
    status: Literal["success"]
    sku_id: SkuId
    plan_type: PlanType
    region: Region
    policy_version: SemVer
    fsm_id: Word
    quota: QuotaTerms
    resources: Resources


_PolicyMs = Annotated[
    Count | None, Field(description="to find and check its policy; absent: of an earlier release")
]


class EntitlementActive(EntitlementActiveV1, Second):
    """Runbooks 1 and 6, the union of both contracts (D3)."""

    entitlement_id: EntitlementId
    policy_ms: _PolicyMs = None


class EntitlementFailedV1(OfRun):
    """Runbooks 1 and 6, refused: nothing of the run is left."""

    operation: Literal["entitlement_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    plan_type: PlanType
    region: Region
    failed_step: Word
    error_code: Word
    error_detail: Detail
    retryable: bool


class EntitlementFailed(OfRun, Second):
    """Runbooks 1 and 6, refused: nothing of the run is left."""

    operation: Literal["entitlement_failed"]
    status: Literal["failed"]
    entitlement_id: EntitlementId
    sku_id: SkuId
    plan_type: PlanType
    region: Region
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex
    retryable: bool


class EntitlementPlanChangedV1(OfRun):
    """Runbook 6: the same entitlement under another plan."""

    operation: Literal["entitlement_plan_changed"]
    status: Literal["success"]
    sku_id: SkuId
    previous_plan_type: PlanType
    plan_type: PlanType
    policy_version: SemVer
    quota: QuotaTerms


class EntitlementPlanChanged(EntitlementPlanChangedV1, Second):
    """Runbook 6: the same entitlement under another plan."""

    entitlement_id: EntitlementId
    policy_ms: _PolicyMs = None


class _OfStanding(OfRun):
    entitlement_id: EntitlementId
    sku_id: SkuId
    plan_type: PlanType
    state: Literal["active", "pending_cancellation", "suspended"] = Field(
        description="of the entitlement, from now on"
    )
    effective_at: Timestamp = Field(description="by the marketplace")


class EntitlementSuspended(_OfStanding):
    """Runbook 6: the marketplace suspended it; its signals are refused, nothing is deleted."""

    operation: Literal["entitlement_suspended"]
    status: Literal["suspended"]


class EntitlementReinstated(_OfStanding):
    """Runbook 6: a suspended entitlement admits signals again."""

    operation: Literal["entitlement_reinstated"]
    status: Literal["success"]


class EntitlementRenewed(_OfStanding):
    """Runbook 6: a further term began; a scheduled cancellation is void."""

    operation: Literal["entitlement_renewed"]
    status: Literal["success"]


class EntitlementCancellationScheduled(_OfStanding):
    """Runbook 6: it ends at ``effective_at``, and works until then."""

    operation: Literal["entitlement_cancellation_scheduled"]
    status: Literal["scheduled"]


class EntitlementCancellationReverted(_OfStanding):
    """Runbook 6: a scheduled cancellation was taken back."""

    operation: Literal["entitlement_cancellation_reverted"]
    status: Literal["reverted"]


class EventIgnored(OfRun):
    """A marketplace event that changed nothing: out of date, or without effect."""

    operation: Literal["event_ignored"]
    status: Literal["ignored"]
    entitlement_id: EntitlementId
    sku_id: SkuId
    event_type: Code
    event_time: Timestamp
    reason: Literal["stale", "no-entitlement", "no-change", "ended", "others-active"]
