"""Segments: a large ledger is archived while it grows, and verifies in parts and together."""

import dataclasses
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cli.audit.verify_archive import Against, verify_archive, verify_or_tell
from governor.errors import InputError, OutageError
from governor.paths import receipt_path
from ledger.keys import fingerprint
from ports import Ports
from tasks.archives import segments
from tasks.archives.write import write_archive
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tests.engine.conftest import on_both
from tests.support.faults import Fault, Watched, Writes, outage
from tests.support.ledgers import ACCOUNT, build, emit, spoil, watched

VERIFY = Path(__file__).parents[3] / "ledger" / "auditor" / "verify.py"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


def _fetched(ports: Ports, folder: Path) -> list[Path]:
    """The files of all segments, and what a cancellation would archive beside them."""
    paths = []
    for segment in segments.up_to(ports, ACCOUNT, 10_000):
        path = folder / segment.name.rpartition("/")[2]
        path.write_bytes(ports.archives.get(segment.name) or b"")
        paths.append(path)
    log = StoredLog.of(ports, ACCOUNT)
    last = log.newest_signed()
    assert last
    after = log.seal_at(segments.newest_before(ports, ACCOUNT, last))
    rest = folder / "rest.tar.gz"
    with rest.open("wb") as target:
        write_archive(ports, ACCOUNT, target, last=last, after=after)
    return [*paths, rest]


def _trust(ports: Ports, folder: Path) -> Path:
    path = folder / "keys.json"
    path.write_text(ports.keys.ring().model_dump_json(exclude_none=True))
    return path


def _script(ports: Ports, *words: object) -> "subprocess.CompletedProcess[str]":
    keys = [w for key in ports.keys.ring() for w in ("--fingerprint", fingerprint(key.key))]
    command = [sys.executable, "-I", VERIFY, *keys, "--account-id", ACCOUNT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _watched(ports: Ports, writes: Writes, call: str) -> Ports:
    archives = Watched(ports.archives, writes, call)
    return dataclasses.replace(watched(ports, writes), archives=archives)  # type: ignore[arg-type]


@on_both
def test_segments_verify_alone_and_with_their_neighbours(ports: Ports, tmp_path: Path) -> None:
    build(ports, batches=7, each=4)
    assert [segments.is_due(ports, ACCOUNT, 10), segments.is_due(ports, ACCOUNT, 29)] == [1, 0]
    cut = [segments.cut_next(ports, ACCOUNT, 10) for _ in range(3)]

    assert [(s.first, s.size) for s in cut if s] == [(0, 12), (12, 24)]
    assert not segments.is_due(ports, ACCOUNT, 10)
    paths = _fetched(ports, tmp_path)
    against = Against(_trust(ports, tmp_path), account_id=ACCOUNT)
    for path, first, size in zip(paths, (0, 12, 24), (12, 24, 28), strict=True):
        alone = dataclasses.replace(against, begins_at=first)
        judged = verify_archive(path, against=alone)
        assert (judged.report.findings, judged.first, judged.report.sealed) == ([], first, size)
        assert _script(ports, "--from", first, path).returncode == 0
        assert _script(ports, path).returncode == (1 if first else 0)
    for some, first in ((paths, 0), (paths[:2], 0), (paths[1:], 12)):
        together = dataclasses.replace(against, begins_at=first)
        assert verify_archive(*some, against=together).report.findings == []
        assert _script(ports, "--from", first, *some).returncode == 0
    for wrong in ([paths[0], paths[2]], paths[::-1], [paths[1], paths[1]]):
        report = verify_archive(*wrong, against=against).report
        assert "base.json" in report.findings[0].subject
        assert _script(ports, *wrong).returncode == 1


def test_what_an_earlier_checkpoint_vouched_for_is_held_against_segments(
    ports: Ports, tmp_path: Path
) -> None:
    build(ports, batches=7, each=4)
    for _ in range(2):
        segments.cut_next(ports, ACCOUNT, 10)
    first, second, rest = _fetched(ports, tmp_path)
    against = Against(_trust(ports, tmp_path), extends=first)

    assert verify_archive(first, second, against=against).report.extends
    begins = dataclasses.replace(against, begins_at=12)
    assert verify_archive(second, against=begins).report.extends  # it begins just there
    with pytest.raises(InputError) as found:
        verify_archive(rest, against=dataclasses.replace(against, begins_at=24))
    assert found.value.code == "begins-later"


def test_nothing_is_cut_of_a_ledger_that_does_not_hold(ports: Ports, database: Path) -> None:
    ids = build(ports, batches=3, each=4)
    spoil(database, receipt_path(ACCOUNT, ids[5]), lambda data: {**data, "payload": "{}"})

    with pytest.raises(BrokenLogError):
        segments.cut_next(ports, ACCOUNT, 10)

    assert list(ports.archives.names(f"{ACCOUNT}/")) == []
    assert segments.up_to(ports, ACCOUNT, 100) == []


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_whatever_write_fails_there_is_one_segment(ports: Ports, fault: Fault) -> None:
    build(ports, batches=3, each=4)
    for at in (1, 2):
        writes = Writes(at, fault, outage)
        with suppress(OutageError):
            segments.cut_next(_watched(ports, writes, "create"), ACCOUNT, 10)
        assert writes.count >= at

    found = segments.cut_next(ports, ACCOUNT, 10) or segments.up_to(ports, ACCOUNT, 100)[0]

    assert [found] == segments.up_to(ports, ACCOUNT, 100)
    assert list(ports.archives.names(f"{ACCOUNT}/")) == [found.name]


def test_an_earlier_attempts_segment_is_taken_though_keys_were_rotated(ports: Ports) -> None:
    build(ports, batches=3, each=4)
    with pytest.raises(OutageError):  # it is created, and cannot be read back
        segments.cut_next(_watched(ports, Writes(1, "lost", outage), "get"), ACCOUNT, 10)
    ports.keys.rotate(ports.clock.now())
    emit(ports, "later")
    assert seal_ledger(ports, ACCOUNT)

    found = segments.cut_next(ports, ACCOUNT, 10)

    assert found
    assert list(ports.archives.names(f"{ACCOUNT}/")) == [found.name]


def test_rubbish_of_its_name_is_left_alone(ports: Ports, tmp_path: Path) -> None:
    build(ports, batches=3, each=4)
    rubbish = f"{ACCOUNT}/segment-0000000000-0000000012.tar.gz"
    ports.archives.create(rubbish, b"rubbish")

    found = segments.cut_next(ports, ACCOUNT, 10)

    assert found
    assert found.name != rubbish
    path = tmp_path / "a.tar.gz"
    path.write_bytes(ports.archives.get(found.name) or b"")
    assert verify_or_tell(path, against=Against(_trust(ports, tmp_path))).report.is_valid
    assert ports.archives.get(rubbish) == b"rubbish"
