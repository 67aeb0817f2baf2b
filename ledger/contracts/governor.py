"""Contracts of policies, scaling and outages (Runbooks 2, 3, 4)."""

from typing import Annotated, Literal

from pydantic import Field

from governor.records import AccountId, EntitlementId, PlanType, SemVer, SkuId, Timestamp
from ledger.contracts.base import (
    Code,
    Concurrency,
    Count,
    Detail,
    Receipt,
    ReceiptId,
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


_CheckMs = Annotated[
    Count | None,
    Field(description="to compare it with every version in use; absent: an earlier release"),
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
    check_ms: _CheckMs = None
    broadcast_ms: Count | None = Field(
        default=None,
        description="until the last process that listens answered, or, above 500, until one that "
        "was silent was waited for no more; absent: none listens, or an earlier release",
    )
    processes_nacked: Count | None = Field(
        default=None, description="that cannot use the version before they are restarted"
    )


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
    check_ms: _CheckMs = None
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


class GovernorScaledV1(_OfScaling):
    """Runbook 3: the limit of actions in flight was changed."""

    operation: Literal["governor_scaled"]
    status: Literal["success"]
    quota_check: Literal["passed", "skipped"]
    cost_delta_usd: Usd


class _Scaled(_OfScaling, Second):
    run_id: Word
    entitlement_id: EntitlementId
    policy_version: SemVer
    cost_delta_usd: Usd = Field(description="until the month ends, rounded half to even")
    cost_basis: Literal["reservation"] = Field(description="of the higher limit, used or not")


class GovernorScaled(_Scaled):
    """Runbook 3: the limit of actions in flight was changed.

    ``lag_before``: how many signals waited, as of ``lag_as_of``; absent where that was unknown.
    """

    operation: Literal["governor_scaled"]
    status: Literal["success"]
    quota_check: Literal["passed", "skipped"]
    trigger: Literal["command", "lag"]
    operator: Word | None = None
    operator_is: Literal["unverified"] | None = None
    reason_sha256: Sha256Hex | None = Field(
        default=None, description="of the operator's words beside the ledger"
    )
    why: Code | None = Field(default=None, description="of the system: `lag` or `idle`")
    decided_from: Sha256Hex | None = Field(
        default=None, description="of the inputs, in the run: a decision can be made again"
    )
    lag_before: Count | None = None
    lag_as_of: Timestamp | None = None
    warnings: list[Code] = Field(description="what may keep it from helping")


class GovernorScaleRevertedV1(_OfScaling):
    """Runbook 3: lag grew, so the limit went back."""

    operation: Literal["governor_scale_reverted"]
    status: Literal["reverted"]
    lag_before: Count
    lag_after: Count


class GovernorScaleReverted(_Scaled):
    """Runbook 3: a minute after the limit was raised more signals waited, so that it went back."""

    operation: Literal["governor_scale_reverted"]
    status: Literal["reverted"]
    reverts_receipt_id: ReceiptId
    lag_before: Count
    lag_after: Count
    lag_as_of: Timestamp
    trigger: Literal["command", "lag"] | None = Field(
        default=None, description="of the change; absent: an earlier release"
    )
    arrivals_rose: bool = Field(
        default=False, description="by more than a quarter meanwhile: the change is not to blame"
    )


class GovernorScaleVerified(Receipt):
    """Runbook 3: a minute after the limit was raised, it was seen whether that helped."""

    operation: Literal["governor_scale_verified"]
    status: Literal["verified"]
    run_id: Word
    sku_id: SkuId
    entitlement_id: EntitlementId
    concurrency: Concurrency
    verifies_receipt_id: ReceiptId
    trigger: Literal["command", "lag"] = Field(description="of the change")
    verdict: Literal["better", "same", "inconclusive", "superseded"]
    lag_before: Count | None = None
    lag_after: Count | None = None
    lag_as_of: Timestamp | None = None


class GovernorScalingPaused(Receipt):
    """Runbook 3: until a moment, the limit changes by command alone."""

    operation: Literal["governor_scaling_paused"]
    status: Literal["paused"]
    sku_id: SkuId
    entitlement_id: EntitlementId
    until: Timestamp
    operator: Word
    operator_is: Literal["unverified"]
    reason_sha256: Sha256Hex


class GovernorScalingResumed(Receipt):
    """Runbook 3: a pause was ended before its time."""

    operation: Literal["governor_scaling_resumed"]
    status: Literal["resumed"]
    sku_id: SkuId
    entitlement_id: EntitlementId
    paused_until: Timestamp
    operator: Word
    operator_is: Literal["unverified"]


class GovernorScaleFailed(Receipt):
    """Runbook 3: a change of the limit could not be made; it is as it was."""

    operation: Literal["governor_scale_failed"]
    status: Literal["failed"]
    run_id: Word
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex


class QuotaExceededV1(Receipt):
    """Runbook 3: scaling was blocked by the quota."""

    operation: Literal["quota_exceeded"]
    status: Literal["refused"]
    sku_id: SkuId
    limit: Word
    requested: Usd
    allowed: Usd


class QuotaExceeded(QuotaExceededV1, Second):
    """Runbook 3: scaling was blocked by the quota; nothing was changed."""

    run_id: Word
    entitlement_id: EntitlementId
    policy_version: SemVer
    trigger: Literal["command", "lag"] = "command"
    concurrency: Concurrency = Field(description="in force, and asked for")
    unit: Literal["actions at once", "actions a month", "usd"] = Field(
        description="of `requested` and `allowed`"
    )


class DegradedModeV1(Receipt):
    """Runbook 4: the store is down; everything new is refused."""

    operation: Literal["degraded_mode"]
    status: Literal["degraded"]
    reason: Word
    error_code: Word
    failure_count: Count
    affected_tenants: Literal["all"] | list[AccountId]
    alert_severity: Word


class DegradedMode(DegradedModeV1, Second):
    """Runbook 4: the store is down; everything new is refused."""

    detected_ms: Count = Field(description="since the first failed check began")


class DegradedModeClearedV1(Receipt):
    """Runbook 4: the store is back."""

    operation: Literal["degraded_mode_cleared"]
    status: Literal["recovered"]
    reason: Word
    downtime_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    actions_refused: Count


class DegradedModeCleared(DegradedModeClearedV1, Second):
    """Runbook 4: the store is back."""

    actions_accepted: Count | None = Field(
        default=None,
        description="while degraded: 0; absent: it is not known, or some tenants' outage",
    )
    recovery_ms: Count | None = Field(
        default=None,
        description="from the start of the good check that ended it until all is served again; "
        "absent where that is not known",
    )
