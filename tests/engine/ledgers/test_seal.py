"""The log under faults: whatever is lost, reported wrongly or killed, it verifies afterwards."""

import dataclasses
import multiprocessing
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from governor.errors import ConflictError, OutageError
from governor.paths import checkpoint_path, receipt_path, seal_path
from ledger.log import MAX_LEAVES, Seal, Stored, again, next_seal, parse_leaf
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Create, Document, Query, Update
from tasks.ledgers import seal as sealing
from tasks.ledgers import stored_log
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tasks.receipts.commit import commit_once
from tests.support.faults import Fault, Writes, die, outage
from tests.support.ledgers import (
    ACCOUNT,
    audit,
    build,
    contradicted,
    emit,
    faults,
    run_sql,
    sealed_ids,
    signed,
    spoil,
    told,
    watched,
)
from tests.support.runs import receipts, text_of

WRITES_OF_A_ROUND = 3
"""The seal, the copy of its checkpoint, the checkpoint."""


def _process(ports: Ports, work: Callable[[], object]) -> "multiprocessing.process.BaseProcess":
    """A process of its own; SQLite must not be open when it forks."""
    ports.documents.close()
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def _holds(ports: Ports, ids: list[str]) -> bool:
    assert faults(ports) == ""
    assert audit(ports).unsealed == 0
    assert sorted(sealed_ids(ports)) == sorted(ids)
    assert contradicted(ports) == []
    return True


def test_what_is_emitted_is_sealed_in_the_order_of_its_commits(ports: Ports) -> None:
    ids = build(ports)

    assert sealed_ids(ports) == ids
    assert [each.size for each in signed(ports)] == [5, 10, 15]
    assert _holds(ports, ids)


def test_receipts_of_one_commit_are_all_sealed_even_across_two_seals(ports: Ports) -> None:
    many = [told(ports, str(n)) for n in range(MAX_LEAVES + 300)]
    for at in range(0, len(many), 500):
        commit_once(ports, many[at : at + 500])

    assert seal_ledger(ports, ACCOUNT)

    last = StoredLog.of(ports, ACCOUNT).newest()
    assert last
    assert (last.number, last.tree_size) == (2, MAX_LEAVES + 300)
    assert _holds(ports, [str(one.data["receipt_id"]) for one in many])


def test_nothing_new_is_no_seal(ports: Ports) -> None:
    ids = build(ports, batches=1)

    assert seal_ledger(ports, ACCOUNT)

    assert [each.size for each in signed(ports)] == [5]
    assert _holds(ports, ids)


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("at", range(1, 1 + WRITES_OF_A_ROUND))
def test_a_sealer_killed_at_any_write_is_followed_by_one_that_goes_on(
    ports: Ports, at: int, fault: Fault
) -> None:
    ids = build(ports, batches=1)
    ids += emit(ports, "x", "y")

    child = _process(ports, lambda: seal_ledger(watched(ports, Writes(at, fault, die)), ACCOUNT))
    child.join(30)

    assert child.exitcode == -9
    assert faults(ports) == "" or "checkpoint" in faults(ports)
    ids += emit(ports, "z")
    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, ids)


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("at", range(1, 1 + WRITES_OF_A_ROUND))
def test_a_write_that_fails_or_only_says_so_leaves_a_log_that_verifies(
    ports: Ports, at: int, fault: Fault
) -> None:
    ids = emit(ports, "x", "y")

    try:
        seal_ledger(watched(ports, Writes(at, fault, outage)), ACCOUNT)
    except OutageError:
        pass  # the copy is written outside of the database, and nobody repeats it here

    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, ids)


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_an_emission_that_fails_or_only_says_so_is_one_receipt(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports], fault: Fault
) -> None:
    (again,) = emit(faulty(fault, {1}), "x")

    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, [again])


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_an_emitter_killed_at_its_commit_leaves_one_receipt_once_repeated(
    ports: Ports, fault: Fault
) -> None:
    once = told(ports, "x")

    child = _process(ports, lambda: commit_once(watched(ports, Writes(1, fault, die)), [once]))
    child.join(30)
    assert child.exitcode == -9
    commit_once(ports, [once])

    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, [str(once.data["receipt_id"])])


@pytest.mark.parametrize("at", range(1, 1 + WRITES_OF_A_ROUND))
@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_a_sealer_overtaken_at_any_write_by_another_agrees_with_it(
    ports: Ports, at: int, fault: Fault
) -> None:
    ids = emit(ports, "x", "y")

    def overtake() -> None:
        ids.extend(emit(ports, "z"))
        assert seal_ledger(ports, ACCOUNT)

    assert seal_ledger(watched(ports, Writes(at, fault, overtake)), ACCOUNT)
    assert _holds(ports, ids)


@pytest.mark.parametrize("sealers", [2, 8])
def test_many_sealers_at_once_make_one_log(ports: Ports, sealers: int) -> None:
    ids: list[str] = []
    emitted = multiprocessing.get_context("fork").Event()

    def work() -> None:
        while not emitted.is_set():
            seal_ledger(ports, ACCOUNT)

    children = [_process(ports, work) for _ in range(sealers)]
    for n in range(60):
        ids += emit(ports, str(n))
    emitted.set()
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0] * sealers
    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, ids)


def test_ten_thousand_honest_receipts_raise_no_alarm(ports: Ports) -> None:
    def work(writer: int) -> None:
        for batch in range(50):
            commit_once(ports, [told(ports, f"{writer}-{batch}-{n}") for n in range(50)])

    children = [_process(ports, lambda n=n: work(n)) for n in range(4)]  # type: ignore[misc]
    while any(child.is_alive() for child in children):
        seal_ledger(ports, ACCOUNT)
        assert faults(ports, last=StoredLog.of(ports, ACCOUNT).newest_signed()) == ""
    while not seal_ledger(ports, ACCOUNT):
        pass

    report = audit(ports)

    assert (report.findings, report.sealed, report.unsealed) == ([], 10_000, 0)
    assert contradicted(ports) == []


def test_a_poison_receipt_is_sealed_as_rejected_alarmed_and_holds_up_nobody(
    ports: Ports, tmp_path: Path
) -> None:
    first, poison, last = emit(ports, "x", "y", "z")
    path = receipt_path(ACCOUNT, poison)
    spoil(tmp_path / "documents.db", path, lambda d: d.update(payload=d["payload"] + " "))
    ports.documents.commit([Create(receipt_path(ACCOUNT, "junk"), {"no": "receipt"})])

    assert seal_ledger(ports, ACCOUNT)
    assert seal_ledger(ports, ACCOUNT)  # the alert's own receipt

    seal = StoredLog.of(ports, ACCOUNT).seal_at(1)
    assert seal
    leaves = {leaf.receipt_id: leaf for leaf in map(parse_leaf, seal.leaves)}
    assert leaves[first].rejected is None
    assert leaves[last].rejected is None
    assert "SHA-256" in (leaves[poison].rejected or "")
    assert "not the fields" in (leaves["junk"].rejected or "")
    told_of = [
        text_of(ports, SignedReceipt.stored(d.data).fields())
        for d in ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts"))
        if d.data.get("operation") == "alert_raised"
    ]
    assert len(told_of) == 1
    assert poison in told_of[0]
    found = faults(ports)
    assert poison in found
    assert "junk" in found
    assert first not in found


@pytest.mark.parametrize(
    "forge",
    ["another tree", "a leaf of nobody", "sealed twice", "a gap", "another order", "one left out"],
)
def test_a_forged_seal_is_never_signed(ports: Ports, tmp_path: Path, forge: str) -> None:
    ids = build(ports, batches=2)
    emit(ports, "x", "y", "z")
    honest: list[Document] = []

    def stop() -> None:
        honest.extend(ports.documents.scan(Query(f"tenants/{ACCOUNT}/seals", limit=10)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal_ledger(watched(ports, Writes(1, "landed", stop)), ACCOUNT)
    seal = StoredLog.of(ports, ACCOUNT).seal_at(3)
    before = StoredLog.of(ports, ACCOUNT).seal_at(2)
    assert seal
    assert before
    leaf, ring = parse_leaf(seal.leaves[0]), ports.keys.ring()

    forged = {
        "another tree": lambda: seal.evolve(root="00" * 32),
        "a leaf of nobody": lambda: again(
            ACCOUNT, before, [leaf.evolve(envelope_sha256="0" * 64).text()]
        ),
        "sealed twice": lambda: again(
            ACCOUNT,
            before,
            [
                parse_leaf(before.leaves[0])
                .evolve(index=10, recorded_at=before.recorded_until)
                .text()
            ],
        ),
        "another order": lambda: next_seal(
            ACCOUNT, before, _stored(ports, seal, 2, 0, 1), ring, ports.clock.now()
        ),
        "one left out": lambda: next_seal(
            ACCOUNT, before, _stored(ports, seal, 0, 2), ring, ports.clock.now()
        ),
        "a gap": lambda: seal.evolve(leaves=(leaf.evolve(index=11).text(),)),
    }[forge]()
    spoil(tmp_path / "documents.db", seal_path(ACCOUNT, seal.seal_id), lambda _: forged.document())

    with pytest.raises(BrokenLogError):
        seal_ledger(ports, ACCOUNT)

    assert ports.documents.get(checkpoint_path(ACCOUNT, seal.seal_id)) is None
    assert [each.size for each in signed(ports)] == [5, 10]
    assert len(ids) == 10


def _stored(ports: Ports, seal: Seal, *order: int) -> list[Stored]:
    """The receipts of a seal, in another order."""
    found = []
    for at in order:
        document = ports.documents.get(
            receipt_path(ACCOUNT, parse_leaf(seal.leaves[at]).receipt_id)
        )
        assert document
        found.append(stored_log.stored(document))
    return found


def test_a_receipt_signed_long_before_its_commit_is_retried(ports: Ports) -> None:
    class Behind:
        """The clock of a process that then stood still for half a minute."""

        def now(self) -> datetime:
            return ports.clock.now() - timedelta(seconds=31)

        def __getattr__(self, name: str) -> object:
            return getattr(ports.clock, name)

    stale = told(dataclasses.replace(ports, clock=Behind()), "x")  # type: ignore[arg-type]

    with pytest.raises(
        OutageError, match="a receipt was signed .* s ago by this clock.*Nothing was written"
    ):
        commit_once(ports, [stale])

    assert ports.documents.get(stale.path) is None


def test_one_spoilt_ledger_keeps_no_other_from_being_sealed(ports: Ports, tmp_path: Path) -> None:
    build(ports, account_id="spoilt")
    run_sql(
        tmp_path / "documents.db",
        "UPDATE documents SET data = '[1]' WHERE path = ?",
        seal_path("spoilt", "000000000003"),
    )
    for account_id in ("spoilt", "a", "z"):
        emit(ports, "x", account_id=account_id)

    sealing.sweep(ports)
    sealing.sweep(ports)

    assert all(len(sealed_ids(ports, account_id)) == 1 for account_id in ("a", "z"))
    (alarm,) = receipts(ports, "_system")
    assert "checkpoint 3" in text_of(ports, alarm)


def test_a_store_that_gives_documents_late_is_sealed_without_a_gap(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ports.documents), "late_s", 60.0)
    ids = build(ports, batches=3)
    early = told(ports, "late")

    class Late:
        """Keeps one receipt from view, as a store does whose order settles later."""

        def created(self, *args: object, **more: object) -> list[Document]:
            page = ports.documents.created(*args, **more)  # type: ignore[arg-type]
            return [d for d in page if d.path != early.path]

        def __getattr__(self, name: str) -> object:
            return getattr(ports.documents, name)

    commit_once(ports, [early])
    ids += emit(ports, "after")
    behind = dataclasses.replace(ports, documents=Late())  # type: ignore[arg-type]
    assert seal_ledger(behind, ACCOUNT)
    assert str(early.data["receipt_id"]) not in sealed_ids(ports)
    assert seal_ledger(ports, ACCOUNT)

    assert seal_ledger(ports, ACCOUNT, (str(early.data["receipt_id"]),))

    assert sealed_ids(ports)[-1] == early.data["receipt_id"]
    assert _holds(ports, [*ids, str(early.data["receipt_id"])])


def test_two_threads_of_one_process_seal_as_two_processes_do(ports: Ports) -> None:
    ids = emit(ports, *map(str, range(20)))
    threads = [threading.Thread(target=seal_ledger, args=(ports, ACCOUNT)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seal_ledger(ports, ACCOUNT)
    assert _holds(ports, ids)


def test_one_operation_told_with_other_words_is_a_conflict_that_is_receipted_and_alarmed_once(
    ports: Ports,
) -> None:
    (kept,) = emit(ports, "x")
    ports.documents.commit([Create("runs/r", {"n": 1})])
    state = ports.documents.get("runs/r")
    assert state

    for _ in range(2):
        with pytest.raises(ConflictError):
            commit_once(ports, [Update(state.path, {"n": 2}, state.revision), told(ports, "x")])

    again = ports.documents.get("runs/r")
    assert again == state
    stored = ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts"))
    operations = sorted(d.data["operation"] for d in stored)
    assert operations == ["action_complete", "alert_raised", "receipt_conflict"]
    conflict = next(d for d in stored if d.data["operation"] == "receipt_conflict")
    assert f'"subject":"{kept}"' in conflict.data["payload"]
    assert seal_ledger(ports, ACCOUNT)
    assert faults(ports) == ""


def test_who_is_merely_slower_has_no_conflict(ports: Ports) -> None:
    ports.documents.commit([Create("runs/r", {"n": 1})])
    state = ports.documents.get("runs/r")
    assert state
    commit_once(ports, [Update(state.path, {"n": 2}, state.revision), told(ports, "x")])

    with pytest.raises(ConflictError):
        commit_once(ports, [Update(state.path, {"n": 2}, state.revision), told(ports, "x")])

    stored = ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts"))
    assert [d.data["operation"] for d in stored] == ["action_complete"]


@pytest.mark.parametrize(
    "made",
    [
        "2026-01-01",
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00Z",
        "0999-01-01T00:00:00Z",
        "x",
        7,
        None,
    ],
)
def test_a_poison_document_with_any_time_holds_up_nobody_and_hides_nothing(
    ports: Ports, tmp_path: Path, made: object
) -> None:
    ids = build(ports, batches=1)
    move = "UPDATE documents SET created_us = created_us + ? WHERE path = ?"
    run_sql(tmp_path / "documents.db", move, 3_600_000_000, receipt_path(ACCOUNT, ids[2]))
    ports.documents.commit([Create(receipt_path(ACCOUNT, "junk"), {"timestamp": made})])
    ids += emit(ports, "after")

    assert seal_ledger(ports, ACCOUNT)

    assert [each for each in sealed_ids(ports) if each in ids] == ids


def test_a_seal_is_never_too_large_to_be_stored(ports: Ports) -> None:
    for at in range(0, 1000, 250):
        ports.documents.commit(
            [
                Create(
                    receipt_path(ACCOUNT, f"{at + n:04d}" + "x" * 240),
                    {
                        "payload": "",
                        "sha256": "",
                        "signature": "",
                        "key_id": "\x01" * 64,
                        "receipt_id": "x",
                        "account_id": "x",
                        "operation": "x",
                        "timestamp": "x",
                        "status": "x",
                    },
                )
                for n in range(250)
            ]
        )
    emit(ports, "honest")

    assert seal_ledger(ports, ACCOUNT)

    assert len(set(sealed_ids(ports))) == len(sealed_ids(ports)) >= 1001


@pytest.mark.parametrize("when", ["between seals", "at the end"])
def test_a_ledger_that_grows_while_it_is_judged_raises_no_alarm(ports: Ports, when: str) -> None:
    ids = build(ports)
    grown: list[str] = []

    def grow(done: int) -> None:
        if not grown and done == (5 if when == "between seals" else 15):
            grown.extend(emit(ports, "meanwhile-1", "meanwhile-2"))
            assert seal_ledger(ports, ACCOUNT)

    report = audit(ports, progress=grow)

    assert report.findings == []
    assert report.sealed == 17
    assert _holds(ports, [*ids, *grown])


def test_what_is_being_sealed_and_was_not_asked_for_is_not_called_unsealed(ports: Ports) -> None:
    build(ports)
    until = ports.clock.now()
    emit(ports, "x")
    with pytest.raises(OutageError):
        seal_ledger(watched(ports, Writes(2, "lost", outage)), ACCOUNT)

    assert audit(ports, until=until).unsealed == 0
    assert audit(ports).unsealed == 1
