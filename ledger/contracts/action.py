"""Contracts of actions (Runbook 5)."""

from typing import Annotated, Literal

from pydantic import Field

from governor.records import EntitlementId, SemVer, SignalType, SkuId, Timestamp
from ledger.contracts.base import Code, Count, Detail, Receipt, ReceiptId, Second, Sha256Hex, Word

Rollback = Literal["due", "none", "impossible"]
"""Whether the action is rolled back: it is due; there is nothing to undo; it cannot be undone."""


class _OfAction(Receipt):
    action_id: Word
    sku_id: SkuId
    signal_type: SignalType


class _OfActionEnd(_OfAction):
    handler: Word
    policy_version: SemVer
    queue_ms: Count
    run_ms: Count


_PolicyDigest = Annotated[
    Sha256Hex | None, Field(description="of the policy it began under; absent: a release before it")
]


class ActionCompleteV1(_OfActionEnd):
    """Runbook 5: the handler ran to its end inside its deadline."""

    operation: Literal["action_complete"]
    status: Literal["success"]


class ActionComplete(ActionCompleteV1, Second):
    """Runbook 5: the handler ran to its end inside its deadline."""

    entitlement_id: EntitlementId
    policy_digest: _PolicyDigest = None


class ActionTimeoutV1(_OfActionEnd):
    """Runbook 5: the deadline fired, or the action waited too long in the queue (D10)."""

    operation: Literal["action_timeout"]
    status: Literal["failed"]
    timeout_ms: Count
    phase: Literal["running", "queued"]
    error_code: Word
    error_detail: Detail


class ActionTimeout(_OfActionEnd, Second):
    """Runbook 5: the deadline fired, or the action waited too long in the queue (D10)."""

    operation: Literal["action_timeout"]
    status: Literal["failed"]
    entitlement_id: EntitlementId
    policy_digest: _PolicyDigest = None
    timeout_ms: Count
    phase: Literal["running", "queued"]
    rollback: Rollback
    error_code: Code


class ActionFailedV1(_OfActionEnd):
    """Runbook 5: the handler said it failed, or its process died."""

    operation: Literal["action_failed"]
    status: Literal["failed"]
    error_code: Word
    error_detail: Detail
    is_recoverable: bool


class ActionFailed(_OfActionEnd, Second):
    """Runbook 5: the handler said it failed, or its process died."""

    operation: Literal["action_failed"]
    status: Literal["failed"]
    entitlement_id: EntitlementId
    policy_digest: _PolicyDigest = None
    is_recoverable: bool
    rollback: Rollback
    error_code: Code
    error_sha256: Sha256Hex = Field(description="of the text beside the ledger")


class ActionRolledBackV1(_OfAction):
    """Runbook 5: the action's rollback ran and returned."""

    operation: Literal["action_rolled_back"]
    status: Literal["rolled_back"]
    previous_action_receipt_id: ReceiptId
    rollback_duration_ms: Count


class ActionRolledBack(ActionRolledBackV1, Second):
    """Runbook 5: the action's rollback ran and returned."""

    entitlement_id: EntitlementId


class RollbackFailedV1(_OfAction):
    """Runbook 5: the undo failed; it is tried again until it holds (D19)."""

    operation: Literal["rollback_failed"]
    status: Literal["failed"]
    previous_action_receipt_id: ReceiptId
    rollback_attempt: Count
    error_code: Word
    error_detail: Detail
    retry_at: Timestamp


class RollbackFailed(_OfAction, Second):
    """Runbook 5: the rollback failed; it is tried again until it holds (D19)."""

    operation: Literal["rollback_failed"]
    status: Literal["failed"]
    entitlement_id: EntitlementId
    previous_action_receipt_id: ReceiptId
    rollback_attempt: Count
    rollback_timeout_ms: Count
    error_code: Code
    error_sha256: Sha256Hex = Field(description="of the text beside the ledger")
    retry_at: Timestamp


class ActionResolvedV1(_OfAction):
    """An operator undid by hand what a rollback could not, and said so."""

    operation: Literal["action_resolved"]
    status: Literal["resolved"]
    entitlement_id: EntitlementId
    previous_action_receipt_id: ReceiptId
    rollback_attempts: Count
    operator: Word
    reason: Detail


class ActionResolved(_OfAction, Second):
    """An operator undid by hand what a rollback could not, and said so."""

    operation: Literal["action_resolved"]
    status: Literal["resolved"]
    entitlement_id: EntitlementId
    previous_action_receipt_id: ReceiptId
    rollback_attempts: Count
    operator: Word
    reason_sha256: Sha256Hex = Field(description="of the operator's words beside the ledger")
