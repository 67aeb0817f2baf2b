"""Verifying a ledger where it lies. Nothing here signs; a seal is asked for, and waited for."""

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.local.private_files import replace
from adapters.local.waiting import until
from cli.audit.parallel import examining
from cli.audit.pins import pin_of
from cli.output import Progress, read_file
from cli.stores import opened
from config.settings import Settings
from governor.errors import InputError, OutageError
from ledger.audit import Pin
from ledger.checkpoint import Checkpoint, open_checkpoint
from ports import Ports
from tasks.ledgers import stored_log
from tasks.ledgers.audit import audit_ledger, in_this_process
from tasks.ledgers.report import Report
from tasks.ledgers.states import missing_receipts
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.ledgers.verify_receipt import CHECKS, Judgement, verify_receipt

VALID, BROKEN, NOT_SEALED, CLOCK_OFF = 0, 1, 6, 7
"""Exit codes of a verification (D22)."""

SEAL_WITHIN_S = 5.0
_MANY = 2000
"""Leaves from which processes of their own are worth starting."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a whole ledger, and the checkpoint it was held against."""

    report: Report
    pinned: Checkpoint | None

    @property
    def code(self) -> int:
        """The exit code."""
        if not self.report.is_valid:
            return BROKEN
        return NOT_SEALED if self.report.unsealed else VALID


def open_ledger() -> Ports:
    """The ports the settings name."""
    return opened()


def verify_one(ports: Ports, account_id: str, receipt_id: str) -> Judgement:
    """Judge one receipt, after asking for a seal if it has none.

    Raises:
        InputError: there is no such receipt in this account's ledger.
        OutageError: a store is away; there is no verdict.
    """
    verdict = verify_receipt(ports, account_id, receipt_id)
    if verdict.is_valid and verdict.leaf is None:
        ask_for_a_seal(ports, account_id)
        verdict = verify_receipt(ports, account_id, receipt_id)
    return verdict


def code_of(verdict: Judgement) -> int:
    """The exit code for one receipt."""
    if not verdict.is_valid:
        return BROKEN
    return VALID if verdict.leaf else NOT_SEALED


def told(verdict: Judgement) -> list[str]:
    """A line for each check."""
    found = {finding.check: finding for finding in verdict.findings}
    lines = []
    for check in CHECKS:
        finding = found.get(check)
        mark = "-     " if finding is None else "ok    " if finding.holds else "BROKEN"
        unasked = "not sealed yet" if verdict.leaf is None else "not asked"
        fault = unasked if finding is None else finding.fault
        if finding and finding.holds and finding.check == CHECKS[-1] and verdict.leaf:
            fault = f"leaf {verdict.leaf.index}, recorded at {verdict.leaf.recorded_at}"
        lines.append(f"{mark} {check:<13} {fault}".rstrip())
    return lines


def verify_all(
    ports: Ports, settings: Settings, account_id: str, extends: Path | None = None
) -> Verified:
    """Judge everything of a ledger, and remember its checkpoint if all of it holds.

    ``extends`` is a checkpoint, or an archive with one, that the ledger must extend as well.

    Raises:
        InputError: the account has no ledger, or the remembered checkpoint is spoilt.
        OutageError: a store is away; there is no verdict.
    """
    try:
        until = ask_for_a_seal(ports, account_id)
        last = StoredLog.of(ports, account_id).newest_signed()
    except BrokenLogError:
        until = last = None  # the audit reports this fault and all others
    ring, path = ports.keys.ring(), _pin_path(settings, account_id)
    pinned = _pinned(path, ring.log_origin(account_id), ports)
    if last is None and until is None and pinned is None and not _is_known(ports, account_id):
        raise InputError("no-ledger", f"there is no ledger of {account_id}")
    pins = pins_of(ports, settings, account_id)
    if extends:
        pins.append(pin_of(extends, ring, account_id))
    with ExitStack() as opened:
        total = last.tree_size if last else 0
        progress = opened.enter_context(Progress(f"verifying {account_id}", total))
        examine_all = opened.enter_context(examining()) if total > _MANY else in_this_process
        report = audit_ledger(
            ports,
            account_id,
            until=until,
            progress=progress.advance_to,
            pins=pins,
            examine_all=examine_all,
        )
    report.add(missing_receipts(ports, account_id))
    if report.is_valid and report.checkpoint:
        _remember(path, report.checkpoint)
    return Verified(report, pinned)


def pins_of(ports: Ports, settings: Settings, account_id: str) -> list[Pin]:
    """The checkpoint that this machine saw last, where it saw one."""
    path = _pin_path(settings, account_id)
    pinned = _pinned(path, ports.keys.ring().log_origin(account_id), ports)
    return [Pin(pinned, f"the checkpoint seen before ({path})")] if pinned else []


def _pin_path(settings: Settings, account_id: str) -> Path:
    return settings.pins_dir / f"{account_id}.checkpoint"


def ask_for_a_seal(ports: Ports, account_id: str) -> datetime | None:
    """Have the present receipts sealed, and wait; returns the newest one's time of creation.

    None when nothing is unsealed, or so much that all of it must be looked at.
    """
    log = StoredLog.of(ports, account_id)
    last = log.newest_signed()
    waiting = log.unsealed(last, stored_log.PAGE)
    if not waiting:
        return datetime.fromisoformat(last.recorded_until) if last else None
    newest = waiting[-1].created_at
    try:
        ports.unsealed.mark_unsealed(account_id)
    except OutageError:
        return newest  # no stack runs: these receipts stay unsealed

    def is_sealed() -> bool:
        last = log.newest_signed()
        return last is not None and datetime.fromisoformat(last.recorded_until) >= newest

    with contextlib.suppress(TimeoutError):
        until(is_sealed, SEAL_WITHIN_S, 0.05)
    return newest if len(waiting) < stored_log.PAGE else None


def summary_of(verified: Verified) -> dict[str, Any]:
    """A verified ledger as one JSON value."""
    report = verified.report
    return {
        "account_id": report.account_id,
        "verdict": verdict_of(verified),
        "sealed": report.sealed,
        "unsealed": report.unsealed,
        "seals": report.seals,
        "root": report.tree.root.hex() if report.tree else None,
        "extends": report.extends,
        "clock_off": report.clock_off,
        "clock_off_s": report.clock_off_s,
        "findings": [
            {"subject": f.subject, "check": f.check, "fault": f.fault} for f in report.findings
        ],
        "more_findings": report.more_findings,
    }


def verdict_of(verified: Verified) -> str:
    """The verdict in words."""
    unsealed = f", {verified.report.unsealed} not sealed yet"
    return verified.report.words() + (unsealed if verified.code == NOT_SEALED else "")


def _pinned(path: Path, origin: str, ports: Ports) -> Checkpoint | None:
    note = read_file(path)
    if note is None:
        return None
    try:
        return open_checkpoint(note, origin, ports.keys.ring())[0]
    except InputError as error:
        raise InputError(
            "bad-pin",
            f"{path} is the checkpoint this machine saw last, and cannot be used "
            f"({error.detail}). Nothing was verified; find out who changed it, or the keys, "
            "before you remove it",
        ) from error


def _remember(path: Path, note: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace(path, note.removesuffix("\n"))
    except OSError as error:
        raise OutageError(
            "pin-unwritten",
            f"everything holds, but its checkpoint could not be remembered in "
            f"{path} ({error.strerror}); mend its mode, and verify again",
        ) from error


def _is_known(ports: Ports, account_id: str) -> bool:
    return (
        ports.documents.get(f"tenants/{account_id}") is not None
        or StoredLog.of(ports, account_id).mirrored(1) is not None
    )
