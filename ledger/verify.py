"""The four checks of the spec, each with its own verdict and its own words.

They judge one receipt by itself. Its place in the sealed log (inclusion, consistency) is judged in
``ledger.audit``, and never reported as checked where it was not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from governor.errors import InputError
from governor.times import instant
from ledger import canonical, contracts
from ledger.keys import KeyRing, untimely
from ledger.receipt import COPIES, SignedReceipt, is_signed_by

MAX_AHEAD = timedelta(seconds=5)
"""How far a receipt's own clock may run ahead of the store's (D13)."""

MAX_BEHIND = timedelta(seconds=60)
"""How long after its end an operation's receipt may be recorded (D13), unless it says that it was
spooled: the store was away, and the receipt was signed and kept elsewhere until it was back."""


class Check(StrEnum):
    """The spec's four checks ("Receipt Verification"), and the two that the log adds."""

    IMMUTABILITY = "immutability"
    ORDERING = "ordering"
    INTEGRITY = "integrity"
    COMPLETENESS = "completeness"
    INCLUSION = "inclusion"
    CONSISTENCY = "consistency"
    CLOCK = "clock"
    """No fault of the ledger: the receipt's own clock was off (D13)."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A receipt as its store gave it back: under which id, and when it was recorded."""

    stored: SignedReceipt
    path_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one ``subject`` (a receipt's id, or a part of the log by name).

    ``fault`` is empty when the check holds; of ``Check.CLOCK`` it says by how much a clock was off,
    ``off_s``, which breaks nothing.
    """

    subject: str
    check: Check
    fault: str
    off_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the check passed."""
        return not self.fault or self.check is Check.CLOCK


def verify(
    entry: Recorded,
    *,
    account_id: str,
    ring: KeyRing,
    previous_recorded_at: datetime | None = None,
) -> list[Finding]:
    """The four checks of one receipt, in the order of ``Check``, and its clock where that was off.

    Args:
        entry: the receipt as stored.
        account_id: whose ledger it was asked from.
        ring: the trusted keys; a key named by the receipt alone is not trusted.
        previous_recorded_at: when the receipt before it was recorded, if there is one.
    """
    fields, malformed = _parse(entry.stored)
    faults = {
        Check.IMMUTABILITY: _immutability(entry, ring),
        Check.ORDERING: _ordering(entry, previous_recorded_at),
        Check.INTEGRITY: _integrity(entry, fields, account_id),
        Check.COMPLETENESS: malformed or _completeness(entry.stored, fields),
    }
    found = [Finding(entry.path_id, check, fault) for check, fault in faults.items()]
    off_s = _clock_off_s(entry, fields)
    if off_s:
        words = f"its timestamp lies {abs(off_s):.0f} s {'after' if off_s < 0 else 'before'} the "
        words += "time at which it was recorded"
        found.append(Finding(entry.path_id, Check.CLOCK, words, abs(off_s)))
    return found


def unfit(entry: Recorded, account_id: str, ring: KeyRing) -> str:
    """Why a log may not take this for a receipt of this account; empty when it may.

    Time and contract are not asked here: a wrong clock, a retired key, or a contract newer than
    this version, is for verification to tell.
    """
    fields, _ = _parse(entry.stored)
    return _authenticity(entry.stored, ring) or _integrity(entry, fields, account_id)


def _immutability(entry: Recorded, ring: KeyRing) -> str:
    trusted = ring.find(entry.stored.key_id)
    fault = _authenticity(entry.stored, ring)
    return fault or (untimely(trusted, entry.recorded_at) if trusted else "")


def _authenticity(stored: SignedReceipt, ring: KeyRing) -> str:
    if hashlib.sha256(_bytes(stored.payload)).hexdigest() != stored.sha256:
        return "the SHA-256 of the signed text is not the one stored beside it"
    trusted = ring.find(stored.key_id)
    if trusted is None:
        return f"signed by key {stored.key_id[:64]!r}, which is not among the trusted keys"
    if not is_signed_by(stored, trusted.key):
        return f"the signature does not fit the text under key {stored.key_id}"
    return ""


def _ordering(entry: Recorded, previous: datetime | None) -> str:
    if previous is not None and entry.recorded_at < previous:
        return f"recorded at {entry.recorded_at}, before its predecessor at {previous}"
    try:
        if instant(entry.stored.timestamp).tzinfo is not None:
            return ""
    except (ValueError, TypeError):
        pass
    return f"timestamp {entry.stored.timestamp[:64]!r} is not RFC 3339"


def _clock_off_s(entry: Recorded, fields: Mapping[str, Any]) -> float:
    """How far a receipt's own time lies before (or, negative, after) that of its recording.

    0 within the declared skew. A clock that was off breaks no ledger; it may also be a receipt that
    was dated back, so that every verifier says it.
    """
    try:
        offset = entry.recorded_at - instant(entry.stored.timestamp)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    is_late = offset > MAX_BEHIND and fields.get("spooled") is not True
    return offset.total_seconds() if is_late or offset < -MAX_AHEAD else 0.0


def _integrity(entry: Recorded, fields: Mapping[str, Any], account_id: str) -> str:
    for name in COPIES:
        if fields.get(name) != getattr(entry.stored, name):
            return f"the stored copy of {name} differs from the signed text"
    if entry.stored.account_id != account_id:
        return f"it belongs to account {entry.stored.account_id[:64]!r}, not {account_id!r}"
    if entry.stored.receipt_id != entry.path_id:
        return f"it is stored under another id than its own, {entry.stored.receipt_id[:64]!r}"
    return ""


def _completeness(stored: SignedReceipt, fields: dict[str, Any]) -> str:
    try:
        contracts.validate(fields, strict=True)
    except InputError as error:
        return error.detail
    if not canonical.is_canonical(fields, _bytes(stored.payload)):
        return "the signed text is not canonical JSON (RFC 8785)"
    return ""


def _parse(stored: SignedReceipt) -> tuple[dict[str, Any], str]:
    """The fields of the signed text; none, and why, where it is not a JSON object."""
    try:
        fields = canonical.loads(stored.payload)
    except InputError as error:
        return {}, error.detail
    return (fields, "") if isinstance(fields, dict) else ({}, "the signed text is no JSON object")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
