"""One receipt, judged: the spec's four checks, and its place in the signed log."""

from dataclasses import dataclass, replace

from pydantic import ValidationError

from governor.errors import InputError
from governor.paths import receipt_path
from governor.times import instant
from ledger.audit import Entry, check_checkpoint, check_created, examine
from ledger.keys import ALWAYS
from ledger.log import Leaf, inclusion
from ledger.merkle import leaf_hash, verify_inclusion
from ledger.receipt import SignedReceipt
from ledger.verify import Check, Finding, Recorded, verify
from ports import Ports
from ports.documents import Document
from tasks.ledgers import stored_log
from tasks.ledgers.stored_log import BrokenLogError, Place, StoredLog

CHECKS = (
    Check.IMMUTABILITY,
    Check.ORDERING,
    Check.INTEGRITY,
    Check.COMPLETENESS,
    Check.INCLUSION,
)
"""The checks of one receipt, in the order in which they are reported."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A finding for each check; inclusion is missing while the receipt is not sealed."""

    findings: list[Finding]
    leaf: Leaf | None

    @property
    def is_valid(self) -> bool:
        """Whether every check that was made holds."""
        return all(finding.holds for finding in self.findings)


def verify_receipt(ports: Ports, account_id: str, receipt_id: str) -> Judgement:
    """Judge one receipt of an account.

    Raises:
        InputError: there is no such receipt in this account's ledger.
        OutageError: a store is away, so the receipt cannot be judged.
    """
    found = ports.documents.get(receipt_path(account_id, receipt_id))
    if found is None:
        if leaf := _sealed_once(ports, account_id, receipt_id):
            gone = f"was sealed as leaf {leaf.index}, and is no longer stored"
            return Judgement([Finding(receipt_id, Check.COMPLETENESS, gone)], leaf)
        raise InputError(
            "no-such-receipt", f"the ledger of {account_id} has no receipt {receipt_id}"
        )
    try:
        place = _signed_place(ports, account_id, found)
        findings = _checks(ports, account_id, found, place)
        if place is None:
            return Judgement(findings, None)
        inclusion_fault = _inclusion_fault(ports, account_id, place)
    except BrokenLogError as error:
        fault = Finding(receipt_id, Check.INCLUSION, error.fault)
        return Judgement([*_checks(ports, account_id, found, None), fault], None)
    return Judgement([*findings, Finding(receipt_id, Check.INCLUSION, inclusion_fault)], place.leaf)


def _sealed_once(ports: Ports, account_id: str, receipt_id: str) -> Leaf | None:
    """The leaf of a receipt that is gone, if it ever had one."""
    if not receipt_id:
        return None
    for _, leaf in StoredLog.of(ports, account_id).find_leaf(receipt_id, instant(ALWAYS)):
        return leaf
    return None


def _signed_place(ports: Ports, account_id: str, found: Document) -> Place | None:
    log = StoredLog.of(ports, account_id)
    place = log.place_of(found)
    signed = log.newest_signed()
    if place and (signed is None or place.seal.number > signed.number):
        return None  # its seal is in the making
    return place


def _checks(ports: Ports, account_id: str, found: Document, place: Place | None) -> list[Finding]:
    """The spec's four checks; by what the log says of the receipt once it is sealed."""
    ring, receipt_id = ports.keys.ring(), stored_log.id_of(found)
    try:
        stored = SignedReceipt.model_validate(found.data)
    except ValidationError:
        fault = "not the fields of a receipt"
        return [Finding(receipt_id, check, fault) for check in CHECKS[:4]]
    if place is None:
        entry = Recorded(stored, receipt_id, found.created_at)
        return verify(entry, account_id=account_id, ring=ring)
    entry = Recorded(stored, receipt_id, instant(place.leaf.recorded_at))
    before = _recorded_before(place)
    judged = verify(
        entry,
        account_id=account_id,
        ring=ring,
        previous_recorded_at=instant(before) if before else None,
    )
    by_the_log = {
        each.check: replace(each, subject=receipt_id)
        for each in (
            *examine([Entry(place.leaf.text(), found.data)], account_id, ring),
            *check_created(place.leaf, found.created_at, before),
        )
    }
    told = [each if each.fault else by_the_log.get(each.check, each) for each in judged]
    is_told = any(each.check is Check.CLOCK for each in judged)
    return told if is_told else [*told, *filter(None, [by_the_log.get(Check.CLOCK)])]


def _recorded_before(place: Place) -> str:
    at = place.leaf.index - place.seal.first_index
    if at > 0:
        return stored_log.leaf_of(place.seal, place.seal.leaves[at - 1]).recorded_at
    return place.before.recorded_until if place.before else ""


def _inclusion_fault(ports: Ports, account_id: str, place: Place) -> str:
    """Why the leaf is not proved to be under the root that was signed; empty when it is."""
    ring, seal = ports.keys.ring(), place.seal
    note = StoredLog.of(ports, account_id).note_of(seal)
    tree = stored_log.tree_of(seal, ring.log_origin(account_id))
    where = f"checkpoint {seal.number}"
    if note is None:
        return f"{where} is missing"
    for fault in check_checkpoint(note, where, seal.recorded_until, tree, ring):
        return f"{where} {fault.fault}"
    if (place.before.tree_size if place.before else 0) != seal.first_index:
        return f"seal {seal.number} does not begin where the one before it ends"
    proof = inclusion(place.before, seal, place.leaf.index)
    hashed = leaf_hash(place.leaf.text().encode())
    if not verify_inclusion(place.leaf.index, tree.size, hashed, proof, tree.root):
        return f"leaf {place.leaf.index} does not lead to the root that {where} signs"
    return ""
