"""Contracts of what concerns the platform and its ledger."""

from typing import Literal

from pydantic import Field

from governor.records import Timestamp
from ledger.contracts.base import Code, Count, Detail, Receipt, ReceiptId, Second, Sha256Hex, Word


class _Tally(Receipt):
    status: Literal["refused"]
    window_end: Timestamp
    total: Count
    by_reason: dict[Word, Count]


class WebhookRejected(_Tally):
    """Webhooks refused since the receipt before this one, counted by reason (D7)."""

    operation: Literal["webhook_rejected"]


class SignalsRefused(_Tally):
    """Signals refused since the receipt before this one, counted by reason (D7)."""

    operation: Literal["signals_refused"]


class AlertRaisedV1(Receipt):
    """An alert was raised."""

    operation: Literal["alert_raised"]
    status: Literal["raised"]
    severity: Literal["info", "warning", "critical"]
    cause: Word
    subject: Word
    detail: Detail
    cause_receipt_id: ReceiptId | None = None


class AlertRaised(Receipt, Second):
    """An alert was raised."""

    operation: Literal["alert_raised"]
    status: Literal["raised"]
    severity: Literal["info", "warning", "critical"]
    cause: Word
    subject: Word
    detail_sha256: Sha256Hex
    cause_receipt_id: ReceiptId | None = None


class CompensationFailedV1(Receipt):
    """An undo of a run failed and is parked; it is taken up again."""

    operation: Literal["compensation_failed"]
    status: Literal["failed"]
    run_id: Word
    failed_step: Word
    error_code: Word
    error_detail: Detail


class CompensationFailed(Receipt, Second):
    """An undo of a run failed and is parked; it is taken up again."""

    operation: Literal["compensation_failed"]
    status: Literal["failed"]
    run_id: Word
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex


class ReceiptConflict(Receipt):
    """A second receipt of one operation had different content; the first one is kept."""

    operation: Literal["receipt_conflict"]
    status: Literal["conflict"]
    subject: Word
    kept_sha256: Sha256Hex
    refused_sha256: Sha256Hex


class RunCancelledV1(Receipt):
    """An operator had a run undone before it ended."""

    operation: Literal["run_cancelled"]
    status: Literal["cancelled"]
    run_id: Word
    operator: Word
    reason: Detail


class RunCancelled(Receipt, Second):
    """An operator had a run undone before it ended."""

    operation: Literal["run_cancelled"]
    status: Literal["cancelled"]
    run_id: Word
    operator: Word
    reason_sha256: Sha256Hex = Field(description="of the operator's words beside the ledger")


class KeyRotated(Receipt):
    """A new signing key is in use."""

    operation: Literal["key_rotated"]
    status: Literal["success"]
    previous_key_id: Word
    key_id: Word


class StoreRestored(Receipt):
    """The store was put back as a copy has it; what came after the copy's moment is not in it."""

    operation: Literal["store_restored"]
    status: Literal["success"]
    copied_at: Timestamp = Field(description="the copy's moment")
    copy_sha256: Sha256Hex = Field(description="of the copy's manifest")
    ledgers: Count
    ledgers_behind: Count = Field(description="of which later checkpoints are known")
    operator: Word = Field(description="by the name of the system's user")
    operator_is: Literal["unverified"]


class TenantPurgedV1(Receipt):
    """A tenant's personal data was deleted as the law asks; the receipts stay."""

    operation: Literal["tenant_purged"]
    status: Literal["success"]
    documents_deleted: Count


class TenantPurged(Receipt, Second):
    """What a customer wrote was deleted, as the law asks; receipts and archives of them stay."""

    operation: Literal["tenant_purged"]
    status: Literal["success"]
    run_id: Word
    asked_by: Literal["marketplace", "operator"]
    operator: Word | None = Field(default=None, description="by the name of the system's user")
    operator_is: Literal["unverified"] | None = Field(
        default=None, description="nothing vouches for that name"
    )
    reason_sha256: Sha256Hex | None = Field(
        default=None, description="of the operator's words beside the ledger"
    )
    documents_deleted: Count
    documents_stripped: Count = Field(description="whose free text was removed")
    documents_sha256: Sha256Hex = Field(
        description="of their names, chained: of the digest before it, a space, and each name"
    )
    archives_deleted: Count = 0
    archives_retained: Count = Field(
        default=0, description="which their bucket's retention protects still"
    )
    retained_until: Timestamp | None = Field(
        default=None, description="when the rest is deleted, by itself"
    )


class PurgeFailed(Receipt):
    """What a customer wrote could not be removed, or not yet; what was removed stays so."""

    operation: Literal["purge_failed"]
    status: Literal["failed"]
    run_id: Word
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex


class SignalDeadLetteredV1(Receipt):
    """A signal that can never succeed was taken off its topic (D8)."""

    operation: Literal["signal_dead_lettered"]
    status: Literal["failed"]
    message_id: Word
    error_code: Word
    error_detail: Detail


class SignalDeadLettered(Receipt, Second):
    """A signal that can never succeed was taken off its topic (D8)."""

    operation: Literal["signal_dead_lettered"]
    status: Literal["failed"]
    message_id: Word
    error_code: Code
    error_sha256: Sha256Hex
