"""Contracts of actions (Runbook 5)."""

from typing import Literal

from governor.records import SemVer, SignalType, SkuId, Timestamp
from ledger.contract_base import Count, Detail, Receipt, ReceiptId, Word


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
    rollback_attempt: Count
    error_code: Word
    error_detail: Detail
    retry_at: Timestamp
