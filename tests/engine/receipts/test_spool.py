"""Outcomes the store did not take: kept whole, landed once, in order, or set aside and told."""

import dataclasses
import json
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from governor.errors import OutageError
from governor.fsm import ActionState
from ledger.receipt import SignedReceipt
from ports import Ports, Times
from ports.documents import Query, Update, Write
from tasks import ticks
from tasks.actions import transitions
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tasks.ledgers.seal import seal_ledger
from tasks.receipts import spool
from tests.engine.conftest import event, on_both
from tests.support.actions import (
    action_of,
    every_receipt_is_valid,
    in_flight,
    later,
    look,
    operations,
    receipts,
    signal_of,
)
from tests.support.faults import (
    Fault,
    Watched,
    WatchedDocuments,
    WatchedObjects,
    Writes,
    die,
    outage,
)
from tests.support.ledgers import audit, told
from tests.support.runs import subscribe
from tests.support.stores import Stores

pytestmark = on_both


@pytest.fixture
def times() -> Times:
    """Ends of actions go to the spool soon."""
    return Times(store_timeout_s=0.1)


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


class Away:
    """Documents that were there for the first commits, and are away from then on."""

    def __init__(self, inner: Any, fault: Fault, commits: int = 1) -> None:
        self._inner, self._fault, self._left = inner, fault, commits

    def commit(self, writes: Sequence[Write]) -> list[str]:
        if self._left > 0:
            self._left -= 1
            return list(self._inner.commit(writes))
        if self._fault == "landed":
            self._fault = "lost"
            self._inner.commit(writes)
        raise OutageError("injected", "the store did not answer")

    def get(self, path: str) -> Any:
        if self._left <= 0:
            raise OutageError("injected", "the store did not answer")
        return self._inner.get(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def away(ports: Ports, fault: Fault = "lost") -> Ports:
    """The claim lands, and nothing else does for sure."""
    return dataclasses.replace(ports, documents=Away(ports.documents, fault))  # type: ignore[arg-type]


def kept(ports: Ports) -> list[str]:
    return list(ports.spool.names("spool/"))


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_an_end_the_store_does_not_take_lands_once_it_is_back(ports: Ports, fault: Fault) -> None:
    action_id = submit(ports, signal_of("s"))

    execute(away(ports, fault), "acme", action_id)

    assert kept(ports) == [f"spool/acme/{action_id}.0001"]
    assert ports.memory.spooled() == 1
    assert spool.drain(ports) == 0
    assert operations(ports, action_id) == ["action_complete"]
    assert action_of(ports, action_id).state is ActionState.COMPLETE
    assert receipts(ports, action_id)[0].get("spooled") is (True if fault == "lost" else None)
    assert every_receipt_is_valid(ports)
    assert (kept(ports), ports.memory.spooled(), in_flight(ports)) == ([], 0, 0)
    assert not list(ports.spool.names("aside/"))


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_a_failure_and_its_undo_land_in_their_order(ports: Ports, fault: Fault) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=2))

    execute(away(ports, fault), "acme", action_id)

    assert len(kept(ports)) == 2
    assert spool.drain(ports) == 0
    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert action_of(ports, action_id).state is ActionState.ROLLED_BACK
    assert every_receipt_is_valid(ports)
    assert seal_ledger(ports, "acme")
    assert not audit(ports).findings


def test_a_rollback_that_fails_meanwhile_is_tried_again_afterwards(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s", "demo.rollback_fails", times=1))
    execute(away(ports), "acme", action_id)

    assert spool.drain(ports) == 0

    assert action_of(ports, action_id).state is ActionState.ROLLBACK_FAILED
    roll_back(later(ports, 5), "acme", action_id)
    assert operations(ports, action_id)[-1] == "action_rolled_back"


def test_nobody_ends_in_anothers_place_what_waits_in_the_spool(ports: Ports) -> None:
    done = submit(ports, signal_of("done"))
    failed = submit(ports, signal_of("failed", "demo.sleep", seconds=2))
    for action_id in (done, failed):
        execute(away(ports), "acme", action_id)

    look(later(ports, 60), done, failed)  # far past every limit, in a process that lives

    assert [action_of(ports, a).state for a in (done, failed)] == [ActionState.RUNNING] * 2
    assert spool.drain(ports) == 0
    assert operations(ports, done) == ["action_complete"]
    assert operations(ports, failed) == ["action_timeout", "action_rolled_back"]


def test_an_undo_that_waits_in_the_spool_is_not_handed_out(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=2))
    commits = Away(ports.documents, "lost", commits=2)  # the claim, and the failure's receipt
    execute(dataclasses.replace(ports, documents=commits), "acme", action_id)  # type: ignore[arg-type]
    assert action_of(ports, action_id).state is ActionState.ROLLING_BACK

    look(later(ports, 60), action_id)

    assert action_of(ports, action_id).state is ActionState.ROLLING_BACK
    assert spool.drain(ports) == 0
    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def test_with_both_stores_away_the_process_dies_and_the_reaper_ends_it(
    ports: Ports, stores: Stores
) -> None:
    action_id = submit(ports, signal_of("s"))

    child = stores.process(_carry_out_without_stores, action_id)
    child.join()

    assert child.exitcode == -signal.SIGKILL
    assert not kept(ports)
    ticks.look(later(ports, 1))
    roll_back(later(ports, 2), "acme", action_id)
    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def _carry_out_without_stores(ports: Ports, action_id: str) -> None:
    objects = Watched(ports.spool, Writes(1, "lost", outage), "create")
    execute(dataclasses.replace(away(ports), spool=objects), "acme", action_id)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("happens", [outage, die])
def test_a_drain_may_end_at_any_write(
    ports: Ports, stores: Stores, fault: Fault, happens: Callable[[], None]
) -> None:
    ids = [submit(ports, signal_of(f"s{n}", "demo.sleep", seconds=2)) for n in range(2)]
    for action_id in ids:
        execute(away(ports), "acme", action_id)

    for at in range(1, 20):
        child = stores.process(_drain, at, fault, happens)
        child.join()
        if not kept(ports):
            break

    assert spool.drain(ports) == 0
    for action_id in ids:
        assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert not list(ports.spool.names("aside/"))


def _drain(ports: Ports, at: int, fault: Fault, happens: Callable[[], None]) -> None:
    writes = Writes(at, fault, happens)
    objects = Watched(ports.spool, writes, "delete")
    documents = WatchedDocuments(ports.documents, writes)
    spool.drain(dataclasses.replace(ports, documents=documents, spool=objects))  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_a_spool_whose_answer_is_lost_keeps_what_it_took(ports: Ports, fault: Fault) -> None:
    action_id = submit(ports, signal_of("s"))
    running = transitions.load(ports, "acme", action_id)
    assert running
    writes = [Update(transitions.path_of(running.action), {"a": 1}, running.revision)]
    deaf = dataclasses.replace(ports, spool=WatchedObjects(ports.spool, Writes(1, fault, outage)))  # type: ignore[arg-type]

    with pytest.raises(OutageError):
        spool.put(deaf, "acme", action_id, 1, writes)
    spool.put(ports, "acme", action_id, 1, writes)

    assert kept(ports) == [f"spool/acme/{action_id}.0001"]


def test_what_comes_too_late_is_set_aside_and_told(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)
    stale = transitions.load(ports, "acme", action_id)
    assert stale
    moved = stale.action.evolve(error_detail="somebody else was here")
    transitions.commit(ports, stale, moved)

    assert spool.drain(ports) == 0

    assert action_of(ports, action_id) == moved
    assert not operations(ports, action_id)
    (aside,) = ports.spool.names("aside/")
    assert aside.startswith(f"aside/acme/{action_id}.0001-")
    said = [
        SignedReceipt.stored(d.data).fields()
        for d in ports.documents.scan(Query("tenants/acme/receipts"))
    ]
    assert {t["operation"] for t in said} >= {"receipt_conflict", "alert_raised"}
    assert spool.drain(ports) == 0


def test_what_is_no_commit_is_set_aside_and_holds_nothing_up(ports: Ports) -> None:
    ports.spool.create("spool/acme/a-0.0001", b"rubbish")
    ports.spool.create("spool/acme/a-1.0001", json.dumps({"writes": [{"path": "x"}]}).encode())
    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)

    assert spool.drain(ports) == 0

    assert operations(ports, action_id) == ["action_complete"]
    assert len(list(ports.spool.names("aside/"))) == 2


def test_a_store_that_is_still_away_leaves_everything_where_it_is(ports: Ports) -> None:
    ids = [submit(ports, signal_of(f"s{n}")) for n in range(5)]
    for action_id in ids:
        execute(away(ports), "acme", action_id)
    nowhere = dataclasses.replace(ports, documents=Away(ports.documents, "lost", 0))  # type: ignore[arg-type]

    assert spool.drain(nowhere) == 5

    assert len(kept(ports)) == 5
    assert spool.drain(ports) == 0


def test_of_two_drains_at_once_each_commit_lands_once(ports: Ports, stores: Stores) -> None:
    ids = [submit(ports, signal_of(f"s{n}", "demo.sleep", seconds=1)) for n in range(6)]
    for action_id in ids:
        execute(away(ports), "acme", action_id)

    drains = [stores.process(spool.drain) for _ in range(3)]
    for each in drains:
        each.join()

    assert spool.drain(ports) == 0
    for action_id in ids:
        assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert not list(ports.spool.names("aside/"))


def test_a_receipt_that_waited_for_long_is_in_order_because_it_says_so(ports: Ports) -> None:
    past = later(ports, -300)
    action_id = submit(past, signal_of("s"))
    execute(away(past), "acme", action_id)

    assert spool.drain(ports) == 0

    assert seal_ledger(ports, "acme")
    assert not audit(ports).findings


def test_only_creations_and_updates_are_spooled(ports: Ports) -> None:
    from governor.errors import InputError
    from ports.documents import Delete

    with pytest.raises(InputError):
        spool.put(ports, "acme", "x", 1, [Delete("runs/x", "1")])


def test_a_store_that_forgets_what_it_took_keeps_it_in_the_spool(ports: Ports) -> None:
    class Forgetful:
        def commit(self, writes: Sequence[Write]) -> list[str]:
            return ["1" for _ in writes]

        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)

    assert spool.drain(dataclasses.replace(ports, documents=Forgetful())) == 1  # type: ignore[arg-type]

    assert len(kept(ports)) == 1


def test_somebody_elses_file_in_the_spool_holds_nothing_up(ports: Ports, stores: Stores) -> None:
    if stores.google:
        ports.spool.create("spool/stray", b"not ours")
    else:
        folder = stores.folder / "objects" / "spool"
        folder.mkdir(parents=True)
        (folder / ".nfs0001").write_bytes(b"not ours")
    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)

    assert spool.drain(ports) == 0

    assert operations(ports, action_id) == ["action_complete"]


def test_a_subject_may_be_set_aside_twice(ports: Ports) -> None:
    for content in (b"rubbish", b"other rubbish"):
        ports.spool.create("spool/acme/a-0.0001", content)
        assert spool.drain(ports) == 0

    assert len(list(ports.spool.names("aside/"))) == 2


def test_a_bug_of_ours_holds_nothing_up(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)
    monkeypatch.setattr(spool, "_is_stored", broken)

    assert spool.drain(ports) == 0

    assert len(list(ports.spool.names("aside/"))) == 1


def test_a_place_in_the_spool_that_is_taken_by_another_commit_is_an_outage(ports: Ports) -> None:
    ours, others = (submit(ports, signal_of(name)) for name in ("ours", "others"))
    execute(away(ports), "acme", others)
    content = ports.spool.get(f"spool/acme/{others}.0001")
    assert content
    ports.spool.create(f"spool/acme/{ours}.0001", content)
    running = transitions.load(ports, "acme", ours)
    assert running

    with pytest.raises(OutageError) as taken:
        spool.put(ports, "acme", ours, 1, [told(ports, "x")])

    assert taken.value.code == "spool-taken"


def test_a_key_that_was_changed_meanwhile_spoils_no_receipt(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    execute(away(ports), "acme", action_id)
    _, now_used = ports.keys.rotate(ports.clock.now())

    assert spool.drain(ports) == 0

    (landed,) = [
        SignedReceipt.stored(d.data)
        for d in ports.documents.scan(Query("tenants/acme/receipts"))
        if d.data["operation"] == "action_complete"
    ]
    assert landed.key_id == now_used
    assert every_receipt_is_valid(ports)


def test_a_rollback_that_waits_in_the_spool_is_not_done_again(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=2))
    commits = Away(ports.documents, "lost", commits=2)
    execute(dataclasses.replace(ports, documents=commits), "acme", action_id)  # type: ignore[arg-type]

    roll_back(later(ports, 60), "acme", action_id)  # as if its process were gone

    assert spool.drain(ports) == 0
    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert not list(ports.spool.names("aside/"))
