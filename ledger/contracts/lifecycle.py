"""Contracts of entitlements, from subscription to cancellation (Runbooks 1, 6, 7)."""

from typing import Literal

from governor.records import EntitlementId, PlanType, Region, SemVer, SkuId
from ledger.contracts.base import (
    Code,
    Count,
    Detail,
    OfRun,
    QuotaTerms,
    Receipt,
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


class EntitlementActive(EntitlementActiveV1, Second):
    """Runbooks 1 and 6, the union of both contracts (D3)."""

    entitlement_id: EntitlementId


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


class DecommissionStart(Receipt):
    """Runbook 7: a customer cancelled; the governor drains."""

    operation: Literal["decommission_start"]
    status: Literal["in_progress"]
    sku_id: SkuId
    in_flight_actions: Count


class DecommissionComplete(Receipt):
    """Runbook 7: drained, archived, shut down."""

    operation: Literal["decommission_complete"]
    status: Literal["complete"]
    sku_id: SkuId
    actions_completed: Count
    actions_failed: Count
    receipts_archived: Count
    archive_gcs_path: Word
    archive_size_bytes: Count


class DecommissionFailedV1(Receipt):
    """Runbook 7 could not finish; it is taken up again."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    failed_step: Word
    error_code: Word
    error_detail: Detail


class DecommissionFailed(Receipt, Second):
    """Runbook 7 could not finish; it is taken up again."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex
