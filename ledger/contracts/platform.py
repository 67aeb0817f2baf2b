"""Contracts of what concerns the platform and its ledger."""

from typing import Literal

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


class RunCancelled(Receipt):
    """An operator had a run undone before it ended."""

    operation: Literal["run_cancelled"]
    status: Literal["cancelled"]
    run_id: Word
    operator: Word
    reason: Detail


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
