"""Ledgers verified unasked: what is new, everything, what was overlooked, and what is broken."""

from pathlib import Path

import pytest

from governor.paths import receipt_path
from ledger.log import seal_id
from ledger.receipt import receipt_id
from ports import Ports
from ports.documents import Create
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.ledgers import patrol
from tasks.ledgers.known import ledger_at, next_ledger
from tasks.ledgers.patrol import judge, judge_states
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.sign import raise_alarm
from tasks.ledgers.stored_log import BrokenLogError, StoredLog
from tests.engine.conftest import event
from tests.support.actions import signal_of
from tests.support.ledgers import ACCOUNT, build, emit, faults, run_sql, sealed_ids, spoil, told
from tests.support.runs import receipts, subscribe, text_of


def _alarms(ports: Ports) -> list[str]:
    return [text_of(ports, r) for r in receipts(ports, "_system")]


def _pass(ports: Ports, scope: str) -> int:
    """A whole pass over one ledger; how many slices it took."""
    number, slices = 0, 1
    while (reached := judge(ports, ACCOUNT, scope, number)) is not None:
        assert reached > number
        number, slices = reached, slices + 1
    return slices


@pytest.mark.parametrize("scope", ["new", "everything"])
def test_an_honest_ledger_raises_nothing_however_it_is_sliced(
    ports: Ports, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    monkeypatch.setattr(patrol, "_SEALS_AT_ONCE", 2)
    build(ports, batches=7, each=2)

    assert _pass(ports, scope) == 4
    emit(ports, "more")
    assert _pass(ports, scope) == 4
    assert _pass(ports, scope) == 4
    assert faults(ports) == ""


def test_what_was_left_without_a_mark_is_sealed(ports: Ports) -> None:
    ids = build(ports, batches=1) + emit(ports, "unmarked")

    _pass(ports, "new")

    assert sealed_ids(ports) == ids


def test_what_the_window_overlooked_is_sealed_once(ports: Ports, tmp_path: Path) -> None:
    early = told(ports, "early")
    ports.documents.commit([early])
    ids = emit(ports, "x", "y")
    # Hidden from its collection while the others are sealed, as by a store that lists it late.
    hide = "UPDATE documents SET collection = ? WHERE path = ?"
    run_sql(tmp_path / "documents.db", hide, "hidden", early.path)
    assert seal_ledger(ports, ACCOUNT)
    run_sql(tmp_path / "documents.db", hide, f"tenants/{ACCOUNT}/receipts", early.path)
    assert seal_ledger(ports, ACCOUNT)
    assert sealed_ids(ports) == ids

    _pass(ports, "new")
    _pass(ports, "new")

    assert sealed_ids(ports) == [*ids, early.data["receipt_id"]]
    assert faults(ports) == ""


def test_every_action_is_compared_with_its_receipts_a_slice_at_a_time(
    ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patrol, "_STATES_AT_ONCE", 2)
    subscribe(ports, event())
    ids = [submit(ports, signal_of(f"s-{n}")) for n in range(5)]
    for action_id in ids:
        execute(ports, ACCOUNT, action_id)
    gone = receipt_id(ACCOUNT, "action_complete", max(ids))
    run_sql(
        tmp_path / "documents.db",
        "DELETE FROM documents WHERE path = ?",
        receipt_path(ACCOUNT, gone),
    )

    after, slices = judge_states(ports, ACCOUNT, ""), 1
    assert not _alarms(ports)
    while after:
        after, slices = judge_states(ports, ACCOUNT, after), slices + 1

    assert slices == 5  # two of two actions, one of one, one of the run; then there is no more
    assert f"action {max(ids)}" in _alarms(ports)[0]


def test_only_everything_looks_again_at_what_was_judged_before(
    ports: Ports, tmp_path: Path
) -> None:
    receipt_id = build(ports, batches=12, each=1)[2]
    _pass(ports, "everything")
    path = receipt_path(ACCOUNT, receipt_id)
    spoil(tmp_path / "documents.db", path, lambda d: d.update(payload=d["payload"] + " "))

    unmarked = emit(ports, "unmarked")
    _pass(ports, "new")
    assert _alarms(ports) == []
    _pass(ports, "everything")

    assert receipt_id in _alarms(ports)[0]
    assert sealed_ids(ports)[-1] == unmarked[0]  # it goes on being sealed


def test_the_checkpoint_judged_last_must_be_extended(ports: Ports, tmp_path: Path) -> None:
    import shutil

    build(ports)
    _pass(ports, "new")
    run_sql(tmp_path / "documents.db", "DELETE FROM documents WHERE path LIKE 'tenants/acme/%'")
    shutil.rmtree(tmp_path / "objects" / "checkpoints")
    emit(ports, *(f"forged-{n}" for n in range(20)))
    assert seal_ledger(ports, ACCOUNT)

    _pass(ports, "new")

    assert "verified last" in _alarms(ports)[0]


def test_a_broken_ledger_is_told_once_a_day_on_the_platforms_own(ports: Ports) -> None:
    for _ in range(2):
        raise_alarm(ports, ACCOUNT, BrokenLogError(ACCOUNT, "receipt x: immutability: spoilt"))

    (alarm,) = receipts(ports, "_system")
    assert alarm["severity"] == "critical"
    assert "receipt x: immutability" in text_of(ports, alarm)


def test_every_ledger_has_its_turn_also_those_without_a_tenant(ports: Ports) -> None:
    ports.documents.commit([Create(f"tenants/{name}", {"n": 1}) for name in ("a", "a-b", "c")])
    for account_id in ("a", "orphan", "a-orphan", "_system"):
        build(ports, batches=1, each=1, account_id=account_id)

    for state, account_id in (("refused", "turned-away"), ("complete", "a"), ("failed", "orphan")):
        data = {"state": state, "account_id": account_id}
        ports.documents.commit([Create(f"runs/run-{account_id}", data)])

    seen, path = [], "tenants/_system"
    while (path := next_ledger(ports, path) or "") != "":
        seen.append(ledger_at(ports, path))

    assert seen == ["a", "a-b", "c", "a-orphan", "orphan", "turned-away"]
    assert StoredLog.of(ports, "orphan").newest().seal_id == seal_id(1)  # type: ignore[union-attr]
