"""Contracts of a cancellation: drained, archived, shut down (Runbook 7)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from governor.records import EntitlementId, SkuId, Timestamp
from ledger.contracts.base import (
    Address,
    Code,
    Count,
    Detail,
    OfRun,
    Receipt,
    Second,
    Sha256Hex,
    Strict,
    Third,
    Word,
)


class DecommissionStartV1(Receipt):
    """Runbook 7: a customer cancelled; the governor drains."""

    operation: Literal["decommission_start"]
    status: Literal["in_progress"]
    sku_id: SkuId
    in_flight_actions: Count


class DecommissionStart(OfRun, Second):
    """Runbook 7: a customer cancelled; the entitlement drains, and admits no signal any more."""

    operation: Literal["decommission_start"]
    status: Literal["in_progress"]
    sku_id: SkuId
    entitlement_id: EntitlementId
    effective_at: Timestamp = Field(description="by the marketplace")
    in_flight_actions: Count
    reason_sha256: Sha256Hex | None = Field(
        default=None, description="of the customer's reason, kept beside the ledger"
    )


class DecommissionCompleteV1(Receipt):
    """Runbook 7: drained, archived, shut down."""

    operation: Literal["decommission_complete"]
    status: Literal["complete"]
    sku_id: SkuId
    actions_completed: Count
    actions_failed: Count
    receipts_archived: Count
    archive_gcs_path: Word
    archive_size_bytes: Count


class ArchiveSegment(Strict):
    """A part of an archived ledger: receipts number ``first`` up to, not with, ``size``."""

    archive_gcs_path: Address
    archive_sha256: Sha256Hex
    archive_size_bytes: Count
    first: Count
    size: Count


class DecommissionComplete(OfRun, Second):
    """Runbook 7: drained, archived; with the last entitlement the governor is shut down.

    ``in_flight_actions`` of the start are ``actions_completed``, ``_failed`` and ``_timed_out``.
    ``actions_accepted`` of this subscription all have their end in the ledger.
    """

    operation: Literal["decommission_complete"]
    status: Literal["complete"]
    sku_id: SkuId
    entitlement_id: EntitlementId
    effective_at: Timestamp = Field(description="by the marketplace")
    governor: Literal["kept", "decommissioned"]
    fsm_id: Word
    in_flight_actions: Count
    actions_completed: Count
    actions_failed: Count
    actions_timed_out: Count
    actions_accepted: Count | None = Field(
        default=None, description="since its subscription; absent where that began in 0.1.0"
    )
    signals_refused: Count = Field(description="taken off the topic after the last action's end")
    undelivered_unknown: Count | None = Field(
        default=None, description="messages seen there, and not taken; absent: it is not known"
    )
    drain_ms: Count | None = Field(
        default=None, description="until what was in flight had ended; absent: an earlier release"
    )
    archive_ms: Count | None = Field(default=None, description="written, read back, verified")
    receipts_archived: Count
    archive_gcs_path: Address
    archive_size_bytes: Count
    archive_sha256: Sha256Hex
    checkpoint_size: Count
    checkpoint_root: Sha256Hex
    segments: list[ArchiveSegment] = Field(
        default_factory=list, description="archived before, oldest first"
    )

    @model_validator(mode="after")
    def _balances(self) -> Self:
        ended = self.actions_completed + self.actions_failed + self.actions_timed_out
        if ended != self.in_flight_actions:
            raise ValueError(f"{self.in_flight_actions} actions were in flight, {ended} ended")
        if self.receipts_archived != self.checkpoint_size:
            raise ValueError("the archive does not hold the checkpoint's receipts")
        return self


class DecommissionFailedV1(Receipt):
    """Runbook 7 could not finish; it is taken up again."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    failed_step: Word
    error_code: Word
    error_detail: Detail


class DecommissionFailedV2(Receipt, Second):
    """Runbook 7 could not finish; it is taken up again."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex


class DecommissionFailed(OfRun, Third):
    """Runbook 7 cannot go on for now; it goes on by itself once it can."""

    operation: Literal["decommission_failed"]
    status: Literal["failed"]
    sku_id: SkuId
    entitlement_id: EntitlementId
    failed_step: Word
    error_code: Code
    error_sha256: Sha256Hex
