"""Contracts of policies, scaling and outages (Runbooks 2, 3, 4)."""

from typing import Annotated, Literal

from pydantic import Field

from governor.records import AccountId, PlanType, SemVer, SkuId
from ledger.contracts.base import (
    Code,
    Concurrency,
    Count,
    Detail,
    Receipt,
    Second,
    Sha256Hex,
    Usd,
    Word,
)


class _OfPolicy(Receipt):
    policy_version: Word
    sku_id: SkuId | None = None
    plan_type: PlanType | None = None


class PolicyUpgraded(_OfPolicy):
    """Runbook 2: a governor runs the new policy."""

    operation: Literal["policy_upgraded"]
    status: Literal["success"]
    previous_version: SemVer
    governors_updated: Count
    governors_failed: Count
    compatibility_check: Word


class PolicyValidationFailedV1(_OfPolicy):
    """Runbook 2: the document is no valid policy."""

    operation: Literal["policy_validation_failed"]
    status: Literal["failed"]
    error_code: Word
    error_detail: Detail


class PolicyValidationFailed(_OfPolicy, Second):
    """Runbook 2: the document is no valid policy."""

    operation: Literal["policy_validation_failed"]
    status: Literal["failed"]
    error_code: Code
    error_sha256: Sha256Hex


class PolicyUpgradeSkippedV1(_OfPolicy):
    """Runbook 2: incompatible, and left for a person's review."""

    operation: Literal["policy_upgrade_skipped"]
    status: Literal["skipped"]
    previous_version: SemVer
    incompatibilities: list[Detail]


class PolicyUpgradeSkipped(_OfPolicy, Second):
    """Runbook 2: incompatible, and left for a person's review."""

    operation: Literal["policy_upgrade_skipped"]
    status: Literal["skipped"]
    previous_version: SemVer
    incompatibilities: list[Code] = Field(description="the rules that it breaks")
    findings_sha256: Sha256Hex = Field(description="of what breaks them, beside the ledger")


class PolicyRollback(_OfPolicy):
    """Runbook 2: one governor went back to the policy before."""

    operation: Literal["policy_rollback"]
    status: Literal["rolled_back"]
    previous_version: SemVer
    error_code: Word


class PolicyForcedV1(_OfPolicy):
    """Runbook 2: an operator forced an incompatible policy."""

    operation: Literal["policy_forced"]
    status: Literal["forced"]
    previous_version: SemVer
    operator: Word
    reason: Detail


class PolicyForced(_OfPolicy, Second):
    """Runbook 2: an operator forced an incompatible policy."""

    operation: Literal["policy_forced"]
    status: Literal["forced"]
    previous_version: SemVer
    operator: Word
    reason_sha256: Sha256Hex = Field(description="of the operator's words beside the ledger")


class _OfScaling(Receipt):
    sku_id: SkuId | None = None
    concurrency: Concurrency


class GovernorScaled(_OfScaling):
    """Runbook 3: the limit of actions in flight was changed."""

    operation: Literal["governor_scaled"]
    status: Literal["success"]
    quota_check: Literal["passed", "skipped"]
    cost_delta_usd: Usd


class GovernorScaleReverted(_OfScaling):
    """Runbook 3: lag grew, so the limit went back."""

    operation: Literal["governor_scale_reverted"]
    status: Literal["reverted"]
    lag_before: Count
    lag_after: Count


class QuotaExceeded(Receipt):
    """Runbook 3: scaling was blocked by the quota."""

    operation: Literal["quota_exceeded"]
    status: Literal["refused"]
    sku_id: SkuId
    limit: Word
    requested: Usd
    allowed: Usd


class DegradedMode(Receipt):
    """Runbook 4: the store is down; everything new is refused."""

    operation: Literal["degraded_mode"]
    status: Literal["degraded"]
    reason: Word
    error_code: Word
    failure_count: Count
    affected_tenants: Literal["all"] | list[AccountId]
    alert_severity: Word


class DegradedModeCleared(Receipt):
    """Runbook 4: the store is back."""

    operation: Literal["degraded_mode_cleared"]
    status: Literal["recovered"]
    reason: Word
    downtime_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    actions_refused: Count
