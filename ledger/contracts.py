"""The receipt contracts: what each operation states, field by field (D12, D14; spec).

One pydantic model per operation, all of them in ``Contract``. ``ggen schema`` publishes their JSON
Schemas. A field the spec names is spelt as the spec spells it.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from governor.errors import InputError
from governor.records import (
    SYSTEM_ACCOUNT,
    AccountId,
    PlanType,
    Region,
    SemVer,
    SignalType,
    SkuId,
    Timestamp,
)

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ReceiptId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
]
LedgerAccount = AccountId | Literal["_system"]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Detail = Annotated[str, StringConstraints(max_length=1024)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Usd = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Receipt(_Strict):
    """What every receipt states (D12)."""

    receipt_id: ReceiptId
    timestamp: Timestamp = Field(description="when the operation ended, by the worker's clock")
    operation: str
    account_id: LedgerAccount
    status: Word
    duration_ms: Count
    drill: bool | None = Field(default=None, description="true when made by a drill")


class Resources(_Strict):
    """What provisioning made."""

    fsm_id: Word
    pubsub_topic: Word
    firestore_path: Word


class QuotaTerms(_Strict):
    """The quota an entitlement starts with."""

    monthly_actions: Count
    concurrent_actions: Count


class Concurrency(_Strict):
    """A change of the limit of actions in flight."""

    previous: Count
    new: Count


class _OfRun(Receipt):
    run_id: Word
    event_id: Word
    body_sha256: Sha256Hex


class EntitlementActive(_OfRun):
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


class EntitlementFailed(_OfRun):
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


class EntitlementPlanChanged(_OfRun):
    """Runbook 6: the same entitlement under another plan."""

    operation: Literal["entitlement_plan_changed"]
    status: Literal["success"]
    sku_id: SkuId
    previous_plan_type: PlanType
    plan_type: PlanType
    policy_version: SemVer
    quota: QuotaTerms


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


class PolicyValidationFailed(_OfPolicy):
    """Runbook 2: the document is no valid policy."""

    operation: Literal["policy_validation_failed"]
    status: Literal["failed"]
    error_code: Word
    error_detail: Detail


class PolicyUpgradeSkipped(_OfPolicy):
    """Runbook 2: incompatible, and left for a person's review."""

    operation: Literal["policy_upgrade_skipped"]
    status: Literal["skipped"]
    previous_version: SemVer
    incompatibilities: list[Detail]


class PolicyRollback(_OfPolicy):
    """Runbook 2: one governor went back to the policy before."""

    operation: Literal["policy_rollback"]
    status: Literal["rolled_back"]
    previous_version: SemVer
    error_code: Word


class PolicyForced(_OfPolicy):
    """Runbook 2: an operator forced an incompatible policy."""

    operation: Literal["policy_forced"]
    status: Literal["forced"]
    previous_version: SemVer
    operator: Word
    reason: Detail


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


class _OfAction(Receipt):
    action_id: Word
    sku_id: SkuId
    signal_type: SignalType


class _OfActionEnd(_OfAction):
    handler: Word
    policy_version: SemVer
    queue_ms: Count
    run_ms: Count


class ActionComplete(_OfActionEnd):
    """Runbook 5: the handler ended inside its deadline."""

    operation: Literal["action_complete"]
    status: Literal["success"]


class ActionTimeout(_OfActionEnd):
    """Runbook 5: the deadline fired, or the action waited too long in the queue (D10)."""

    operation: Literal["action_timeout"]
    status: Literal["failed"]
    timeout_ms: Count
    phase: Literal["running", "queued"]
    error_code: Word
    error_detail: Detail


class ActionFailed(_OfActionEnd):
    """Runbook 5: the handler said it failed, or its process died."""

    operation: Literal["action_failed"]
    status: Literal["failed"]
    error_code: Word
    error_detail: Detail
    is_recoverable: bool


class ActionRolledBack(_OfAction):
    """Runbook 5: what the action did was undone."""

    operation: Literal["action_rolled_back"]
    status: Literal["rolled_back"]
    previous_action_receipt_id: ReceiptId
    rollback_duration_ms: Count


class RollbackFailed(_OfAction):
    """Runbook 5: the undo failed; it is tried again until it holds (D19)."""

    operation: Literal["rollback_failed"]
    status: Literal["failed"]
    previous_action_receipt_id: ReceiptId
    attempt: Count
    error_code: Word
    error_detail: Detail
    retry_at: Timestamp


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


class DecommissionFailed(Receipt):
    """Runbook 7 could not finish; it is taken up again."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    failed_step: Word
    error_code: Word
    error_detail: Detail


class _Tally(Receipt):
    status: Literal["refused"]
    window_start: Timestamp
    window_end: Timestamp
    total: Count
    by_reason: dict[Word, Count]


class WebhookRejected(_Tally):
    """Webhooks refused at the door, once a minute, counted by reason (D7)."""

    operation: Literal["webhook_rejected"]


class SignalsRefused(_Tally):
    """Signals refused, once a minute, counted by reason (D7)."""

    operation: Literal["signals_refused"]


class AlertRaised(Receipt):
    """Somebody was told."""

    operation: Literal["alert_raised"]
    status: Literal["raised"]
    severity: Literal["warning", "critical"]
    cause: Word
    subject: Word
    detail: Detail
    cause_receipt_id: ReceiptId | None = None


class CompensationFailed(Receipt):
    """An undo of a run failed and is parked; it is taken up again."""

    operation: Literal["compensation_failed"]
    status: Literal["failed"]
    run_id: Word
    failed_step: Word
    error_code: Word
    error_detail: Detail


class ReceiptConflict(Receipt):
    """The same operation was told twice with different words; the first stands."""

    operation: Literal["receipt_conflict"]
    status: Literal["conflict"]
    subject: Word
    kept_sha256: Sha256Hex
    refused_sha256: Sha256Hex


class RunCancelled(Receipt):
    """An operator cancelled a run."""

    operation: Literal["run_cancelled"]
    status: Literal["cancelled"]
    run_id: Word
    operator: Word


class KeyRotated(Receipt):
    """A new signing key is in use."""

    operation: Literal["key_rotated"]
    status: Literal["success"]
    previous_key_id: Word
    key_id: Word


class TenantPurged(Receipt):
    """A tenant's personal data was deleted as the law asks; the receipts stay."""

    operation: Literal["tenant_purged"]
    status: Literal["success"]
    documents_deleted: Count


class SignalDeadLettered(Receipt):
    """A signal that can never succeed was taken off its topic (D8)."""

    operation: Literal["signal_dead_lettered"]
    status: Literal["failed"]
    message_id: Word
    error_code: Word
    error_detail: Detail


Contract = Annotated[
    EntitlementActive
    | EntitlementFailed
    | EntitlementPlanChanged
    | PolicyUpgraded
    | PolicyValidationFailed
    | PolicyUpgradeSkipped
    | PolicyRollback
    | PolicyForced
    | GovernorScaled
    | GovernorScaleReverted
    | QuotaExceeded
    | DegradedMode
    | DegradedModeCleared
    | ActionComplete
    | ActionTimeout
    | ActionFailed
    | ActionRolledBack
    | RollbackFailed
    | DecommissionStart
    | DecommissionComplete
    | DecommissionFailed
    | WebhookRejected
    | SignalsRefused
    | AlertRaised
    | CompensationFailed
    | ReceiptConflict
    | RunCancelled
    | KeyRotated
    | TenantPurged
    | SignalDeadLettered,
    Field(discriminator="operation"),
]

MODELS: dict[str, type[Receipt]] = {
    get_args(model.model_fields["operation"].annotation)[0]: model
    for model in get_args(get_args(Contract)[0])
}
"""Operation -> its contract."""

_CONTRACT: TypeAdapter[Receipt] = TypeAdapter(Contract)


def validate(fields: dict[str, Any]) -> Receipt:
    """The contract these fields fulfil.

    Raises:
        InputError: an unknown operation, or a field is missing, unknown or out of bounds; each
            fault is named.
    """
    try:
        return _CONTRACT.validate_python(fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc'][1:] or f['loc'])) or 'receipt'}: {f['msg']}"
            for f in error.errors(include_url=False, include_input=False)[:10]
        )
        raise InputError("contract-broken", faults) from None


def schemas() -> dict[str, dict[str, Any]]:
    """Operation -> JSON Schema (draft 2020-12) of its receipt."""
    return {name: model.model_json_schema() for name, model in sorted(MODELS.items())}


__all__ = ["MODELS", "SYSTEM_ACCOUNT", "Contract", "Receipt", "schemas", "validate"]
