"""A ledger through any sequence of emissions, faults, sealers, rotations and restored backups.

At every step: nothing signed was ever contradicted. At the end: it verifies, and every operation
has exactly one receipt, in exactly one place.
"""

import dataclasses
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adapters.local.directory import DirectoryObjects
from adapters.local.key_files import KeyFiles
from adapters.local.sqlite import SqliteDocuments
from governor.errors import ConflictError, OutageError
from ports import Ports
from ports.documents import Create
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import BrokenLogError
from tasks.receipts.commit import commit_once
from tests.support.faults import Fault, Writes, outage
from tests.support.ledgers import (
    ACCOUNT,
    audit,
    contradicted,
    faults,
    sealed_ids,
    told,
    watched,
)

FAULTS = st.sampled_from(["lost", "landed"])
_BORROWED: list[Ports] = []


class Killed(BaseException):
    """The process is gone; whoever comes next finds what was stored."""


def _kill() -> None:
    raise Killed


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-machine-"))
        self.database = self.folder / "documents.db"
        keys = KeyFiles(self.folder / "keys", "ledger.example")
        keys.create_missing()
        self.ports = dataclasses.replace(
            _BORROWED[0],
            keys=keys,
            documents=SqliteDocuments(self.database),
            objects=DirectoryObjects(self.folder / "objects"),
        )
        self.ports.documents.get("tenants/none")
        self.made: dict[str, Create] = {}
        self.has_backup = False
        self.is_older = False
        self.rotations = 0

    def teardown(self) -> None:
        try:
            self._restore_newest()
            for once in self.made.values():
                self._land(once)
            self._seal_all()
            told_of = {str(once.data["receipt_id"]) for once in self.made.values()}
            found = sealed_ids(self.ports)
            assert faults(self.ports) == ""
            assert audit(self.ports).unsealed == 0
            assert len(set(found)) == len(found)
            assert told_of <= set(found)
            assert len(found) - len(told_of) <= self.rotations
        finally:
            self.ports.documents.close()
            shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 3))
    def emit(self, count: int) -> None:
        for _ in range(count):
            self._land(self._told())

    @rule(fault=FAULTS)
    def emit_and_die(self, fault: Fault) -> None:
        with pytest.raises(Killed):
            commit_once(watched(self.ports, Writes(1, fault, _kill)), [self._told()])

    @rule(fault=FAULTS)
    def emit_and_hear_of_failure(self, fault: Fault) -> None:
        commit_once(watched(self.ports, Writes(1, fault, outage)), [self._told()])

    @rule()
    def emit_once_more(self) -> None:
        for once in list(self.made.values())[-3:]:
            self._land(once)

    @rule()
    def seal(self) -> None:
        self._seal(self.ports)

    @rule(at=st.integers(1, 4), fault=FAULTS)
    def seal_and_die(self, at: int, fault: Fault) -> None:
        try:
            self._seal(watched(self.ports, Writes(at, fault, _kill)))
        except Killed:
            pass

    @rule(at=st.integers(1, 4), fault=FAULTS)
    def seal_and_hear_of_failure(self, at: int, fault: Fault) -> None:
        try:
            self._seal(watched(self.ports, Writes(at, fault, outage)))
        except OutageError:
            pass

    @rule(at=st.integers(1, 4), fault=FAULTS, count=st.integers(0, 2))
    def seal_and_be_overtaken(self, at: int, fault: Fault, count: int) -> None:
        def overtake() -> None:
            self.emit(count)
            self._seal(self.ports)

        self._seal(watched(self.ports, Writes(at, fault, overtake)))

    @precondition(lambda self: self.rotations < 3)
    @rule()
    def rotate(self) -> None:
        self.ports.keys.rotate(self.ports.clock.now())
        self.rotations += 1

    @precondition(lambda self: not self.has_backup and not self.is_older)
    @rule()
    def back_up(self) -> None:
        _copy(self.database, self.folder / "backup.db")
        self.has_backup = True

    @precondition(lambda self: self.has_backup and not self.is_older)
    @rule()
    def restore_the_backup(self) -> None:
        _copy(self.database, self.folder / "newest.db")
        _copy(self.folder / "backup.db", self.database)
        # A seal may have been in the backup already, and only its checkpoint been signed since.
        self.is_older = bool(contradicted(self.ports))
        self.has_backup = False

    @precondition(lambda self: self.is_older)
    @rule()
    def restore_the_newest(self) -> None:
        self._restore_newest()

    @invariant()
    def nothing_signed_is_contradicted(self) -> None:
        if not self.is_older:
            assert contradicted(self.ports) == []
        else:
            assert "older copy" in faults(self.ports)

    def _told(self) -> Create:
        subject = str(len(self.made))
        self.made[subject] = told(self.ports, subject)
        return self.made[subject]

    def _land(self, once: Create) -> None:
        try:
            commit_once(self.ports, [once])
        except ConflictError:
            found = self.ports.documents.get(once.path)
            assert found is not None
            assert found.data == once.data

    def _seal(self, ports: Ports) -> None:
        if not self.is_older:
            assert seal_ledger(ports, ACCOUNT)
            return
        with pytest.raises(BrokenLogError):
            seal_ledger(ports, ACCOUNT)

    def _seal_all(self) -> None:
        assert seal_ledger(self.ports, ACCOUNT)

    def _restore_newest(self) -> None:
        if self.is_older:
            _copy(self.folder / "newest.db", self.database)
            self.is_older = False


def _copy(source: Path, target: Path) -> None:
    """Make one database hold exactly what another does, as a restore does."""
    opened, copy = sqlite3.connect(source), sqlite3.connect(target)
    opened.backup(copy)
    opened.close()
    copy.close()


@pytest.fixture
def _ports_to_borrow(ports: Ports) -> Iterator[None]:
    _BORROWED.append(ports)
    yield
    _BORROWED.clear()


@pytest.mark.usefixtures("_ports_to_borrow")
class TestLedger(LedgerMachine.TestCase):
    settings = settings(
        max_examples=settings.default.max_examples // 5,
        stateful_step_count=25,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
