"""The four checks of the spec, each with its own verdict and its own words.

What needs the sealed log (inclusion, consistency) is not checked here and never reported as
checked: a receipt that passes is *valid, not sealed yet*.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from governor.errors import InputError
from governor.records import instant
from ledger import canonical, contracts
from ledger.receipt import SignedReceipt, is_signed_by

MAX_AHEAD = timedelta(seconds=5)
"""How far a receipt's own clock may run ahead of the store's (D13)."""

MAX_BEHIND = timedelta(seconds=60)
"""How long after its end an operation's receipt may be recorded (D13)."""

COPIES = ("receipt_id", "account_id", "operation", "timestamp", "status")


class Check(StrEnum):
    """The spec's four checks ("Receipt Verification")."""

    IMMUTABILITY = "immutability"
    ORDERING = "ordering"
    INTEGRITY = "integrity"
    COMPLETENESS = "completeness"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A receipt as its store gave it back: under which id, and when it was recorded."""

    stored: SignedReceipt
    path_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one receipt; ``fault`` is empty when it holds."""

    receipt_id: str
    check: Check
    fault: str

    @property
    def holds(self) -> bool:
        """Whether the check passed."""
        return not self.fault


def verify(
    entry: Recorded,
    *,
    account_id: str,
    keys: Mapping[str, Ed25519PublicKey],
    previous_recorded_at: datetime | None = None,
) -> list[Finding]:
    """All four checks of one receipt, in the order of ``Check``.

    Args:
        entry: the receipt as stored.
        account_id: whose ledger it was asked from.
        keys: trusted public keys by id; a key named by the receipt alone is not trusted.
        previous_recorded_at: when the receipt before it was recorded, if there is one.
    """
    faults = {
        Check.IMMUTABILITY: _immutability(entry.stored, keys),
        Check.ORDERING: _ordering(entry, previous_recorded_at),
        Check.INTEGRITY: _integrity(entry, account_id),
        Check.COMPLETENESS: _completeness(entry.stored),
    }
    return [Finding(entry.path_id, check, fault) for check, fault in faults.items()]


def verify_all(
    entries: Iterable[Recorded], *, account_id: str, keys: Mapping[str, Ed25519PublicKey]
) -> Iterable[list[Finding]]:
    """The findings of each receipt of a ledger, given oldest first."""
    previous: datetime | None = None
    for entry in entries:
        yield verify(entry, account_id=account_id, keys=keys, previous_recorded_at=previous)
        previous = entry.recorded_at


def _immutability(stored: SignedReceipt, keys: Mapping[str, Ed25519PublicKey]) -> str:
    if hashlib.sha256(stored.payload.encode()).hexdigest() != stored.sha256:
        return "the SHA-256 of the signed text is not the one stored beside it"
    if stored.key_id not in keys:
        return f"signed by key {stored.key_id[:64]!r}, which is not among the trusted keys"
    if not is_signed_by(stored, keys[stored.key_id]):
        return f"the signature does not fit the text under key {stored.key_id}"
    return ""


def _ordering(entry: Recorded, previous: datetime | None) -> str:
    if previous is not None and entry.recorded_at < previous:
        return f"recorded at {entry.recorded_at}, before its predecessor at {previous}"
    try:
        claimed = instant(entry.stored.timestamp)
        offset = entry.recorded_at - claimed
    except (ValueError, TypeError):
        return f"timestamp {entry.stored.timestamp[:64]!r} is not RFC 3339"
    if offset < -MAX_AHEAD:
        return f"its timestamp lies {-offset} after it was recorded (at most {MAX_AHEAD})"
    if offset > MAX_BEHIND:
        return f"its timestamp lies {offset} before it was recorded (at most {MAX_BEHIND})"
    return ""


def _integrity(entry: Recorded, account_id: str) -> str:
    fields = _fields(entry.stored)
    for name in COPIES:
        if fields.get(name) != getattr(entry.stored, name):
            return f"the stored copy of {name} differs from the signed text"
    if entry.stored.account_id != account_id:
        return f"it belongs to account {entry.stored.account_id[:64]!r}, not {account_id!r}"
    if entry.stored.receipt_id != entry.path_id:
        return f"it is stored under another id than its own, {entry.stored.receipt_id[:64]!r}"
    return ""


def _completeness(stored: SignedReceipt) -> str:
    try:
        fields = canonical.loads(stored.payload)
        contracts.validate(fields)
        if canonical.dumps(fields) != stored.payload.encode():
            return "the signed text is not canonical JSON (RFC 8785)"
    except InputError as error:
        return error.detail
    return ""


def _fields(stored: SignedReceipt) -> Mapping[str, object]:
    try:
        fields = canonical.loads(stored.payload)
    except InputError:
        return {}
    return fields if isinstance(fields, dict) else {}
