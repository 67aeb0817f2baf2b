"""Somebody who holds the database, and not the key, changes something: it is found, and named."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from adapters.local.key_files import KeyFiles
from governor.paths import checkpoint_path, mirror_name, receipt_path, seal_path
from ledger.audit import Pin
from ledger.log import Seal, seal_id
from ledger.receipt import SignedReceipt
from ledger.receipt import receipt_id as receipt_id_of
from ports import Ports
from ports.documents import Query
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.states import missing_receipts
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.ledgers.verify_receipt import verify_receipt
from tests.engine.conftest import event
from tests.support.actions import signal_of
from tests.support.ledgers import (
    ACCOUNT,
    audit,
    build,
    contradicted,
    copy_document,
    emit,
    faults,
    run_sql,
    signed,
    spoil,
)
from tests.support.runs import subscribe


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


def _flip(value: Any) -> Any:
    """The same value with one bit changed in its middle."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, list):
        at = len(value) // 2
        return [*value[:at], _flip(value[at]), *value[at + 1 :]]
    at = len(value) // 2
    return value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]


@pytest.mark.parametrize("field", list(SignedReceipt.model_fields))
def test_a_flipped_bit_in_any_field_of_a_receipt(ports: Ports, database: Path, field: str) -> None:
    receipt_id = build(ports)[7]
    path = receipt_path(ACCOUNT, receipt_id)
    spoil(database, path, lambda data: data.update({field: _flip(data[field])}))

    assert f"receipt {receipt_id} (leaf 7)" in faults(ports)
    assert not verify_receipt(ports, ACCOUNT, receipt_id).is_valid


@pytest.mark.parametrize("field", list(SignedReceipt.model_fields))
def test_a_field_of_a_receipt_that_is_gone_or_of_another_kind(
    ports: Ports, database: Path, field: str
) -> None:
    gone, changed = build(ports)[6:8]
    spoil(database, receipt_path(ACCOUNT, gone), lambda data: data.pop(field) and None)
    spoil(database, receipt_path(ACCOUNT, changed), lambda data: data.update({field: 7}))

    found = faults(ports)
    assert f"receipt {gone} (leaf 6)" in found
    assert f"receipt {changed} (leaf 7)" in found
    assert not verify_receipt(ports, ACCOUNT, gone).is_valid


@pytest.mark.parametrize("at", range(0, 330, 13))
def test_a_flipped_bit_anywhere_in_the_signed_text(ports: Ports, database: Path, at: int) -> None:
    receipt_id = build(ports, batches=1)[2]

    def flip(data: dict[str, Any]) -> None:
        text = data["payload"]
        data["payload"] = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]

    spoil(database, receipt_path(ACCOUNT, receipt_id), flip)

    assert f"receipt {receipt_id} (leaf 2): immutability" in faults(ports)


@pytest.mark.parametrize("shift_us", [-1, 1, -10_000_000, 4_000_000])
def test_another_time_of_creation(ports: Ports, database: Path, shift_us: int) -> None:
    receipt_id = build(ports)[7]
    run_sql(
        database,
        "UPDATE documents SET created_us = created_us + ? WHERE path = ?",
        shift_us,
        receipt_path(ACCOUNT, receipt_id),
    )

    assert f"receipt {receipt_id} (leaf 7): ordering" in faults(ports)


def test_a_creation_far_ahead_of_its_recording_is_a_clock_that_was_off(
    ports: Ports, database: Path
) -> None:
    path = receipt_path(ACCOUNT, build(ports)[7])
    run_sql(
        database, "UPDATE documents SET created_us = created_us + 10000000 WHERE path = ?", path
    )

    report = audit(ports)

    assert report.is_valid
    assert (report.clock_off, round(report.clock_off_s)) == (1, 10)


@pytest.mark.parametrize("when", ["before its seal", "after its seal"])
@pytest.mark.parametrize("value", ["x", "", "9" * 19, 1.5])
def test_a_creation_that_is_no_time_is_found_named_and_passed(
    ports: Ports, database: Path, value: object, when: str
) -> None:
    first = build(ports, batches=1, each=3)
    spoilt = emit(ports, "spoilt")[0] if when == "before its seal" else first[1]
    run_sql(
        database,
        "UPDATE documents SET created_us = ? WHERE path = ?",
        value,
        receipt_path(ACCOUNT, spoilt),
    )
    more = emit(ports, "x", "y")

    assert seal_ledger(ports, ACCOUNT)

    found = faults(ports)
    assert f"receipt {spoilt}" in found
    assert all(each not in found for each in [*more, first[0], first[2]])
    assert audit(ports).unsealed <= 1  # the alert of what was rejected


def test_a_name_twice_in_a_stored_row_is_found(ports: Ports, database: Path) -> None:
    receipt_id = build(ports)[7]
    run_sql(
        database,
        """UPDATE documents SET data = replace(data, '"operation":', '"operation":"x","operation":')
           WHERE path = ?""",
        receipt_path(ACCOUNT, receipt_id),
    )

    assert f"receipt {receipt_id} (leaf 7)" in faults(ports)


def test_a_receipt_deleted_before_its_seal_is_missed_by_its_action(
    ports: Ports, database: Path
) -> None:
    subscribe(ports, event())
    kept = submit(ports, signal_of("kept"))
    gone = submit(ports, signal_of("gone"))
    for action_id in (kept, gone):
        execute(ports, "acme", action_id)
    path = receipt_path(ACCOUNT, receipt_id_of("acme", "action_complete", gone))
    run_sql(database, "DELETE FROM documents WHERE path = ?", path)
    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""

    found = list(missing_receipts(ports, ACCOUNT))

    assert [f.subject for f in found] == [f"action {gone}"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("field", list(Seal.model_fields))
def test_a_flipped_bit_in_any_field_of_a_seal(
    ports: Ports, database: Path, field: str, number: int
) -> None:
    build(ports)
    path = seal_path(ACCOUNT, seal_id(number))
    spoil(database, path, lambda data: data.update({field: _flip(data[field])}))

    assert f"{number}" in faults_or_refusal(ports)


def faults_or_refusal(ports: Ports) -> str:
    """What an audit finds; where the newest seal cannot even be read, why."""
    try:
        return faults(ports)
    except BrokenLogError as error:
        return str(error)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("where", ["checkpoint", "copy"])
@pytest.mark.parametrize("harm", ["flipped", "dropped", "another's"])
def test_a_checkpoint_or_its_copy_spoilt(
    ports: Ports, database: Path, tmp_path: Path, harm: str, where: str, number: int
) -> None:
    build(ports)
    build(ports, account_id="other")
    path = checkpoint_path(ACCOUNT, seal_id(number))
    file = tmp_path / "objects" / mirror_name(ACCOUNT, seal_id(number))
    other = tmp_path / "objects" / mirror_name("other", seal_id(number))
    match where, harm:
        case "checkpoint", "flipped":
            spoil(database, path, lambda data: data.update(note=_flip(data["note"])))
        case "checkpoint", "dropped":
            run_sql(database, "DELETE FROM documents WHERE path = ?", path)
        case "checkpoint", _:
            copy_document(database, checkpoint_path("other", seal_id(number)), path)
        case _, "flipped":
            file.write_text(_flip(file.read_text()))
        case _, "dropped":
            file.unlink()
        case _:
            file.write_bytes(other.read_bytes())

    name = "checkpoint" if where == "checkpoint" else "the copy of checkpoint"
    if (where, harm, number) == ("checkpoint", "dropped", 3):
        report = audit(ports)
        assert (report.sealed, report.unsealed) == (10, 5)  # not sealed: never called valid
    else:
        assert f"{name} {number}" in faults(ports)


@pytest.mark.parametrize("at", [0, 7, 14])
def test_a_dropped_receipt(ports: Ports, database: Path, at: int) -> None:
    receipt_id = build(ports)[at]
    run_sql(database, "DELETE FROM documents WHERE path = ?", receipt_path(ACCOUNT, receipt_id))

    assert f"receipt {receipt_id} (leaf {at}): completeness" in faults(ports)
    verdict = verify_receipt(ports, ACCOUNT, receipt_id)
    assert [f.fault for f in verdict.findings] == [
        f"was sealed as leaf {at}, and is no longer stored"
    ]


def test_the_receipts_of_the_last_seal_dropped_with_its_checkpoint(
    ports: Ports, database: Path
) -> None:
    ids = build(ports)
    run_sql(database, "DELETE FROM documents WHERE path = ?", checkpoint_path(ACCOUNT, seal_id(3)))
    for receipt_id in ids[10:]:
        path = receipt_path(ACCOUNT, receipt_id)
        run_sql(database, "DELETE FROM documents WHERE path = ?", path)

    assert all(f"receipt {receipt_id}" in faults(ports) for receipt_id in ids[10:])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(frontier=[data["root"]]),
        lambda data: data.update(recorded_until="2999-01-01T00:00:00.000000Z"),
        lambda data: data["leaves"].pop(),
        lambda data: data.update(more=1),
        lambda data: data.update(tree_size=str(data["tree_size"])),
        lambda data: data.update(root="zz"),
        lambda data: data.update(frontier=[]),
    ],
    ids=["no tree", "later", "a leaf less", "more fields", "text", "no hash", "empty"],
)
def test_nothing_is_sealed_on_top_of_a_spoilt_seal_and_all_is_well_once_it_is_mended(
    ports: Ports, database: Path, change: Any
) -> None:
    build(ports, batches=2, each=3)
    path = seal_path(ACCOUNT, seal_id(2))
    honest = ports.documents.get(path)
    assert honest
    spoil(database, path, lambda data: change(data) and None)
    emit(ports, "more")

    assert "seal 2" in faults(ports)
    with pytest.raises(BrokenLogError, match="seal 2"):
        seal_ledger(ports, ACCOUNT)
    assert len(signed(ports)) == 2
    spoil(database, path, lambda _: honest.data)
    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""


@pytest.mark.parametrize("shift_s", [1, 3600])
def test_a_receipt_said_to_be_created_anew_is_not_sealed_again(
    ports: Ports, database: Path, shift_s: int
) -> None:
    ids = build(ports)
    path = receipt_path(ACCOUNT, ids[7])
    move = "UPDATE documents SET created_us = created_us + ? WHERE path = ?"
    run_sql(database, move, shift_s * 1_000_000, path)
    if shift_s == 1:
        emit(ports, "more")

    if shift_s <= 5:
        assert f"receipt {ids[7]} (leaf 7): ordering" in faults(ports)
    else:  # a clock that was off, or a time that was changed: it is said, and breaks nothing
        assert (faults(ports), audit(ports).clock_off) == ("", 1)
    assert seal_ledger(ports, ACCOUNT)
    run_sql(database, move, -shift_s * 1_000_000, path)

    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""


@pytest.mark.parametrize("text", ["{", "[1]", "x", '"x"', "[" * 100_000])
@pytest.mark.parametrize("where", ["receipt", "seal", "checkpoint"])
def test_a_document_that_is_none_is_a_finding_and_no_crash(
    ports: Ports, database: Path, where: str, text: str
) -> None:
    ids = build(ports)
    path = {
        "receipt": receipt_path(ACCOUNT, ids[7]),
        "seal": seal_path(ACCOUNT, seal_id(2)),
        "checkpoint": checkpoint_path(ACCOUNT, seal_id(2)),
    }[where]
    for index in ("by_time", "seals_by_id", "seals_by_time"):  # which would refuse such a row
        run_sql(database, f"DROP INDEX {index}")
    run_sql(database, "UPDATE documents SET data = ? WHERE path = ?", text, path)

    name = {"receipt": ids[7], "seal": "seal 2", "checkpoint": "checkpoint 2"}[where]
    assert name in faults(ports)


@pytest.mark.parametrize("name", ["zzz", "000000000009"])
@pytest.mark.parametrize("collection", ["seals", "checkpoints"])
def test_a_document_where_none_belongs(
    ports: Ports, database: Path, collection: str, name: str
) -> None:
    build(ports)
    source = {"seals": seal_path, "checkpoints": checkpoint_path}[collection](ACCOUNT, seal_id(3))
    copy_document(database, source, f"tenants/{ACCOUNT}/{collection}/{name}")

    assert f"{collection}/{name}" in faults(ports)


def test_a_line_or_a_field_more_is_found(ports: Ports, database: Path, tmp_path: Path) -> None:
    ids = build(ports)
    spoil(database, receipt_path(ACCOUNT, ids[2]), lambda data: data.update(more=1))
    spoil(database, checkpoint_path(ACCOUNT, seal_id(2)), lambda data: data.update(more=1))
    file = tmp_path / "objects" / mirror_name(ACCOUNT, seal_id(3))
    more = "— foo.example Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGz\n"
    file.write_text(file.read_text() + more)
    spoil(database, checkpoint_path(ACCOUNT, seal_id(3)), lambda d: d.update(note=d["note"] + more))

    found = faults(ports)
    assert f"receipt {ids[2]} (leaf 2)" in found
    assert "checkpoint 2" in found
    assert "checkpoint 3: consistency: differs" in found


def test_copies_beyond_the_end_are_found_even_where_the_next_one_was_removed(
    ports: Ports, database: Path, tmp_path: Path
) -> None:
    build(ports, batches=4)
    for number in (2, 3, 4):
        for path in (seal_path, checkpoint_path):
            run_sql(
                database, "DELETE FROM documents WHERE path = ?", path(ACCOUNT, seal_id(number))
            )
    (tmp_path / "objects" / mirror_name(ACCOUNT, seal_id(2))).unlink()

    assert "the copy of checkpoint 3" in faults(ports)


def test_a_receipt_its_collection_no_longer_lists(ports: Ports, database: Path) -> None:
    receipt_id = build(ports)[7]
    path = receipt_path(ACCOUNT, receipt_id)
    run_sql(database, "UPDATE documents SET collection = 'hidden' WHERE path = ?", path)

    assert f"receipt {receipt_id} (leaf 7): completeness" in faults(ports)


def test_a_receipt_stored_twice(ports: Ports, database: Path) -> None:
    ids = build(ports)
    copy = ids[7][:-1] + ("0" if ids[7][-1] != "0" else "1")
    copy_document(database, receipt_path(ACCOUNT, ids[7]), receipt_path(ACCOUNT, copy))

    assert f"receipt {copy} (not sealed): integrity" in faults(ports)


def test_two_receipts_swapped(ports: Ports, database: Path) -> None:
    ids = build(ports)
    first, second = (receipt_path(ACCOUNT, ids[n]) for n in (3, 8))
    kept = ports.documents.get(first)
    assert kept
    copy_document(database, second, first)
    spoil(database, second, lambda _: kept.data)

    found = faults(ports)
    assert f"receipt {ids[3]} (leaf 3)" in found
    assert f"receipt {ids[8]} (leaf 8)" in found


def test_a_receipt_of_another_account_in_its_place(ports: Ports, database: Path) -> None:
    ours = build(ports)[7]
    theirs = build(ports, account_id="other")[7]
    copy_document(database, receipt_path("other", theirs), receipt_path(ACCOUNT, ours))

    assert f"receipt {ours} (leaf 7): integrity: it belongs to account 'other'" in faults(ports)
    assert not verify_receipt(ports, ACCOUNT, ours).is_valid


@pytest.mark.parametrize("change", ["drop", "duplicate", "reorder", "swap in", "truncate"])
def test_leaves_of_a_seal_rearranged(ports: Ports, database: Path, change: str) -> None:
    build(ports)
    build(ports, account_id="other")
    other = StoredLog.of(ports, "other").seal_at(2)
    assert other

    def rearrange(data: dict[str, Any]) -> None:
        leaves = data["leaves"]
        match change:
            case "drop":
                del leaves[2]
            case "duplicate":
                leaves.insert(2, leaves[2])
            case "reorder":
                leaves[1], leaves[2] = leaves[2], leaves[1]
            case "swap in":
                leaves[2] = other.leaves[2]
            case _:
                leaves.pop()

    spoil(database, seal_path(ACCOUNT, seal_id(2)), rearrange)

    assert "seal 2" in faults(ports)


@pytest.mark.parametrize("change", ["drop", "duplicate", "swap", "of another account"])
def test_seals_rearranged(ports: Ports, database: Path, change: str) -> None:
    build(ports)
    build(ports, account_id="other")
    second, third = (seal_path(ACCOUNT, seal_id(n)) for n in (2, 3))
    match change:
        case "drop":
            run_sql(database, "DELETE FROM documents WHERE path = ?", second)
        case "duplicate":
            copy_document(database, third, seal_path(ACCOUNT, seal_id(4)))
        case "swap":
            kept = ports.documents.get(second)
            assert kept
            copy_document(database, third, second)
            spoil(database, third, lambda _: kept.data)
        case _:
            copy_document(database, seal_path("other", seal_id(2)), second)

    found = faults_or_refusal(ports)
    assert "seal" in found
    assert {"drop": "2", "duplicate": "4", "swap": "2"}.get(change, "2") in found


@pytest.mark.parametrize("keep", [0, 1, 2])
@pytest.mark.parametrize("with_receipts", [True, False])
def test_the_end_of_the_log_removed(
    ports: Ports, database: Path, keep: int, with_receipts: bool
) -> None:
    ids = build(ports)
    for number in range(keep + 1, 4):
        for path in (seal_path, checkpoint_path):
            run_sql(
                database, "DELETE FROM documents WHERE path = ?", path(ACCOUNT, seal_id(number))
            )
    if with_receipts:
        for receipt_id in ids[keep * 5 :]:
            path = receipt_path(ACCOUNT, receipt_id)  # type: ignore[assignment]
            run_sql(database, "DELETE FROM documents WHERE path = ?", path)
    emit(ports, "new")

    assert f"the copy of checkpoint {keep + 1}" in faults(ports)
    with pytest.raises(BrokenLogError, match="older copy"):
        seal_ledger(ports, ACCOUNT)
    assert len(signed(ports)) == 3


def test_the_store_rolled_back_to_an_older_copy_is_not_sealed_on_and_goes_on_once_restored(
    ports: Ports, database: Path, tmp_path: Path
) -> None:
    ids = build(ports, batches=2)
    _backup(database, tmp_path / "old.db")
    ids += emit(ports, "x")
    assert seal_ledger(ports, ACCOUNT)
    _backup(database, tmp_path / "new.db")
    ports.documents.close()

    _restore(tmp_path / "old.db", database)
    emit(ports, "y")
    assert "older copy" in faults(ports)
    with pytest.raises(BrokenLogError, match="restore the newer one"):
        seal_ledger(ports, ACCOUNT)
    ports.documents.close()

    _restore(tmp_path / "new.db", database)
    ids += emit(ports, "z")
    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""
    assert contradicted(ports) == []


def test_a_checkpoint_that_nothing_was_sealed_for(ports: Ports, database: Path) -> None:
    build(ports)
    stray = checkpoint_path(ACCOUNT, seal_id(9))
    copy_document(database, checkpoint_path(ACCOUNT, seal_id(3)), stray)

    assert stray in faults(ports)


@pytest.mark.parametrize(
    "rewrite", ["another history", "a shorter history"], ids=["other", "shorter"]
)
def test_who_holds_database_and_key_is_convicted_by_a_checkpoint_kept_elsewhere(
    ports: Ports, database: Path, tmp_path: Path, rewrite: str
) -> None:
    build(ports)
    pin = Pin(signed(ports)[-1], "the checkpoint we kept")
    run_sql(database, "DELETE FROM documents WHERE path LIKE 'tenants/acme/%'")
    shutil.rmtree(tmp_path / "objects" / "checkpoints")

    emit(ports, *(f"forged-{n}" for n in range(20 if rewrite == "another history" else 3)))
    assert seal_ledger(ports, ACCOUNT)

    assert faults(ports) == ""  # by itself it is a perfect ledger: nobody can tell
    assert "the checkpoint we kept: consistency" in faults(ports, pins=[pin])


def test_a_forged_key_is_not_trusted_because_a_receipt_names_it(
    ports: Ports, database: Path, tmp_path: Path
) -> None:
    import dataclasses

    from tests.support.ledgers import told

    stranger = KeyFiles(tmp_path / "stranger", "ledger.example")
    stranger.create_missing()
    receipt_id = build(ports)[7]
    forged = told(dataclasses.replace(ports, keys=stranger), "1-2")
    assert forged.path == receipt_path(ACCOUNT, receipt_id)
    spoil(database, forged.path, lambda _: dict(forged.data))

    found = faults(ports)
    assert f"receipt {receipt_id} (leaf 7)" in found
    assert "not among the trusted keys" in found


def test_receipts_across_a_rotation_are_valid_and_a_leaked_key_is_not_believed(
    ports: Ports,
) -> None:
    started = ports.clock.now()
    ids = build(ports, batches=2)
    before, after = ports.keys.rotate(ports.clock.now())
    ids += emit(ports, "x")
    assert seal_ledger(ports, ACCOUNT)

    rotated = ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts", limit=100))
    told_of = [d for d in rotated if d.data["operation"] == "key_rotated"]
    assert len(told_of) == 1
    assert f'"key_id":"{after}"' in told_of[0].data["payload"]
    assert f'"previous_key_id":"{before}"' in told_of[0].data["payload"]
    assert faults(ports) == ""
    assert all(verify_receipt(ports, ACCOUNT, each).is_valid for each in ids)
    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""

    ports.keys.disown(before, started)
    found = faults(ports)
    assert f"receipt {ids[0]} (leaf 0): immutability" in found
    assert "checkpoint 1: consistency" in found
    assert ids[-1] not in found
    later = emit(ports, "after the leak was known")
    assert seal_ledger(ports, ACCOUNT)  # the ledger goes on under the new key
    assert later[0] not in faults(ports)


def _backup(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as opened, sqlite3.connect(target) as copy:
        opened.backup(copy)
    opened.close()
    copy.close()


def _restore(source: Path, target: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    shutil.copy(source, target)


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: "no leaf",
        lambda leaf: leaf.replace('"index":7', '"index":999'),
        lambda leaf: leaf.replace('"recorded_at":"20', '"recorded_at":"29'),
    ],
    ids=["none", "another index", "another time"],
)
def test_a_leaf_that_is_none_is_broken_for_its_receipt_too(
    ports: Ports, database: Path, change: Any
) -> None:
    ids = build(ports)

    def spoil_leaf(data: dict[str, Any]) -> None:
        data["leaves"][2] = change(data["leaves"][2])

    spoil(database, seal_path(ACCOUNT, seal_id(2)), spoil_leaf)

    assert "seal 2" in faults(ports)
    for receipt_id in ids[7:9]:
        verdict = verify_receipt(ports, ACCOUNT, receipt_id)
        assert not (verdict.is_valid and verdict.leaf)


def test_a_time_that_is_none_is_a_finding(ports: Ports, database: Path) -> None:
    ids = build(ports)
    spoil(
        database,
        seal_path(ACCOUNT, seal_id(2)),
        lambda data: data.update(recorded_until="2026-99-01T00:00:00.000000Z"),
    )
    run_sql(
        database,
        "UPDATE documents SET created_us = 'x' WHERE path = ?",
        receipt_path(ACCOUNT, ids[2]),
    )

    found = faults(ports)
    assert "seal 2" in found
    assert f"receipt {ids[2]} (leaf 2)" in found


def test_strays_are_named_and_crash_nothing(ports: Ports, database: Path, tmp_path: Path) -> None:
    build(ports)
    stray = f"tenants/{ACCOUNT}/checkpoints/0000"
    copy_document(database, checkpoint_path(ACCOUNT, seal_id(3)), stray)
    (tmp_path / "objects" / f"{mirror_name(ACCOUNT, seal_id(2))}.bak").write_text("x")

    found = faults(ports)
    assert stray in found
    assert "000000000002.bak" in found


def test_after_a_leak_an_archive_can_still_be_made(ports: Ports) -> None:
    import io

    from tasks.archives.write import write_archive

    started = ports.clock.now()
    build(ports, batches=1)
    before, _ = ports.keys.rotate(ports.clock.now())
    ports.keys.disown(before, started)

    assert write_archive(ports, ACCOUNT, io.BytesIO()).receipts == 5
