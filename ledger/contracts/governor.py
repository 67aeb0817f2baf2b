"""Contracts of policies, scaling and outages (Runbooks 2, 3, 4)."""

from typing import Annotated, Literal

from pydantic import Field

from governor.records import AccountId, EntitlementId, PlanType, SemVer, SkuId
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


class PolicyUpgradedV1(_OfPolicy):
    """Runbook 2: a governor runs the new policy."""

    operation: Literal["policy_upgraded"]
    status: Literal["success"]
    previous_version: SemVer
    governors_updated: Count
    governors_failed: Count
    compatibility_check: Word


class _OfUpgrade(_OfPolicy):
    run_id: Word
    policy_digest: Sha256Hex = Field(description="of the new version's canonical JSON")
    previous_version: SemVer


class PolicyUpgraded(_OfUpgrade, Second):
    """Runbook 2: a governor runs the new policy."""

    operation: Literal["policy_upgraded"]
    status: Literal["success"]
    entitlement_id: EntitlementId
    governors_updated: Count
    governors_failed: Count
    compatibility_check: Literal["compatible", "forced", "rolls-back"]
    concurrent_actions: Count = Field(description="the limit from now on")


_Wave = Annotated[
    Literal["all", "canary"], Field(description="canary: only the governors that try it first")
]


class PolicyBroadcast(_OfUpgrade):
    """Runbook 2: a version came into force; what became of the plan's governors."""

    operation: Literal["policy_broadcast"]
    status: Literal["success"]
    wave: _Wave = "all"
    content_digest: Sha256Hex | None = Field(
        default=None,
        description="of the version without its number: a way back has an earlier one's",
    )
    governors_updated: Count
    governors_failed: Count
    compatibility_check: Literal["compatible", "forced", "rolls-back"]


class PolicyBaked(_OfUpgrade):
    """Runbook 2: a version was watched in its first minutes; ``returning``: everybody leaves it."""

    operation: Literal["policy_baked"]
    status: Literal["passed", "inconclusive", "returning", "stuck"]
    wave: _Wave
    actions_ended: Count = Field(description="under it, since it came into force")
    actions_timed_out: Count
    actions_failed: Count
    rollbacks_failed: Count
    previous_ended: Count = Field(description="under the version before, until then")
    previous_failing: Count
    returns_to: SemVer | None = Field(default=None, description="the version that comes back")


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


class PolicyUpgradeSkipped(_OfUpgrade, Second):
    """Runbook 2: incompatible, and left for a person's review."""

    operation: Literal["policy_upgrade_skipped"]
    status: Literal["skipped"]
    incompatibilities: list[Code] = Field(description="the rules that it breaks")
    findings_sha256: Sha256Hex = Field(description="of what breaks them, beside the ledger")


class PolicyRollbackV1(_OfPolicy):
    """Runbook 2: one governor went back to the policy before."""

    operation: Literal["policy_rollback"]
    status: Literal["rolled_back"]
    previous_version: SemVer
    error_code: Word


class PolicyRollback(_OfUpgrade, Second):
    """Runbook 2: one governor went back to the policy before, which does not fit its state."""

    operation: Literal["policy_rollback"]
    status: Literal["rolled_back"]
    entitlement_id: EntitlementId
    error_code: Code


class PolicyForcedV1(_OfPolicy):
    """Runbook 2: an operator forced an incompatible policy."""

    operation: Literal["policy_forced"]
    status: Literal["forced"]
    previous_version: SemVer
    operator: Word
    reason: Detail


class PolicyForced(_OfUpgrade, Second):
    """Runbook 2: an operator forced an incompatible policy."""

    operation: Literal["policy_forced"]
    status: Literal["forced"]
    operator: Word
    operator_is: Literal["unverified"] = Field(description="nothing vouches for that name")
    findings_sha256: Sha256Hex = Field(description="of the report that was overridden")
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
