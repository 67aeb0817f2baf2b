"""The engine of runs, proved once on a runbook with every kind of step.

Every write, before and after: killed, lost, landed and told as failed. Afterwards there is one end,
with one receipt; everything is there once, or nothing is left.
"""

import dataclasses
import logging
import random
from datetime import timedelta
from typing import Any

import pytest

from cli.commands import run_reports
from governor import paths
from governor.errors import ConflictError, InputError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.runs import Run, Trigger, Wait
from governor.times import instant
from ports import Ports
from ports.documents import Query, Update, Where
from ports.signals import Topic
from tasks.outcomes import Ending
from tasks.runs import intake, journal, operators, reap, spread, step, waits
from tasks.runs.definition import Result, Runbooks
from tests.support import synthetic
from tests.support.faults import Fault, Writes, die, outage, watched
from tests.support.runs import GOES_ON, LaterClock, later, receipts, run_of
from tests.support.stores import Stores
from tests.support.synthetic import ACCOUNT, RUNBOOK

MEMBERS = 5
FAILS = ConflictError("x", "it fails at its end")


def _fails(_ports: Ports, _run: Run) -> Result:
    raise FAILS


UNDONE = dataclasses.replace(
    RUNBOOK,
    steps=tuple(
        dataclasses.replace(s, act=_fails) if s.name == "synthetic.finish" else s
        for s in RUNBOOK.steps
    ),
)
KNOWN = {"succeeds": {}, "undone": {RUNBOOK.name: UNDONE}}
WRITES = {"succeeds": 24, "undone": 38}
CASES = [(name, at) for name, count in WRITES.items() for at in range(1, count + 1)]


def _runbooks(name: str) -> Runbooks:
    return {**synthetic.known(), **KNOWN[name]}


def _chain(ports: Ports, runbooks: Runbooks, run_id: str) -> list[Ending]:
    """What workers do with one chain of a run."""
    run, endings = run_of(ports, run_id), []
    for name, _limit_s in runbooks[run.runbook].links(run):
        endings.append(step.run_link(ports, runbooks, name, run_id).ending)
        if endings[-1] not in GOES_ON:
            break
    return endings


def _open_runs(ports: Ports) -> list[Run]:
    found = ports.documents.scan(Query("runs", where=[Where("state", "in", RUN_OPEN)]))
    return [Run.stored(each.data) for each in found]


def _chains(ports: Ports, runbooks: Runbooks) -> None:
    """What workers do with the chains of every open run, once."""
    for run in _open_runs(ports):
        _chain(ports, runbooks, run.run_id)


def _to_the_end(ports: Ports, runbooks: Runbooks, run_id: str) -> Run:
    """What workers and reaper do, however long it takes; under a later clock."""
    assert isinstance(ports.clock, LaterClock)
    for _ in range(100):
        _chains(ports, runbooks)
        run = run_of(ports, run_id)
        if run.state not in RUN_OPEN and not _open_runs(ports):
            return run
        due = [instant(each.retry_at) for each in _open_runs(ports) if each.retry_at]
        if due:
            ports.clock.sleep_until(max(due))
    raise AssertionError(f"the run is stuck: {run}")


def _is_whole_or_gone(ports: Ports, run: Run) -> None:
    is_whole = run.state is RunState.COMPLETE
    assert is_whole or run.state is RunState.FAILED
    assert synthetic.counts(ports) == {1 if is_whole else 0}
    assert bool(ports.documents.get(f"made/{run.run_id}")) is is_whole
    topic = ports.signals.look(ACCOUNT, "us-central1")
    assert topic is (Topic.READY if is_whole else Topic.ABSENT)
    told = [r for r in _told(ports) if r["run_id"] == run.run_id]
    assert [r["error_code"] for r in told] == ["well" if is_whole else "undone"]
    assert ports.documents.get(paths.turn_path(run.turn)) is None


def _told(ports: Ports) -> list[dict[str, Any]]:
    return [r for r in receipts(ports) if r["operation"] == "compensation_failed"]


@pytest.fixture
def ports(ports: Ports) -> Ports:
    synthetic.populate(ports, MEMBERS)
    return ports


def test_every_kind_of_step_is_done_once(ports: Ports) -> None:
    run = synthetic.start(ports)

    ended = _to_the_end(later(ports), _runbooks("succeeds"), run.run_id)

    _is_whole_or_gone(ports, ended)
    assert ended.journal["synthetic.each"].members == MEMBERS
    children = journal.children(ports, run.run_id, only_open=False, limit=9)
    assert [child.state for child in children] == [RunState.COMPLETE] * 2
    assert _chain(ports, _runbooks("succeeds"), run.run_id) == [Ending.ALREADY_DONE]


def _play(ports: Ports, name: str, run_id: str) -> None:
    """Chains until nothing is open, as workers would carry them out without any fault."""
    for _ in range(4):
        if run_of(ports, run_id).state in RUN_OPEN:
            _chains(ports, _runbooks(name))


@pytest.mark.parametrize("name", WRITES)
def test_a_run_makes_as_many_writes_as_are_broken_below(ports: Ports, name: str) -> None:
    run = synthetic.start(ports)
    writes = Writes(0, "lost", outage)

    _play(watched(ports, writes), name, run.run_id)

    _is_whole_or_gone(ports, run_of(ports, run.run_id))
    assert writes.count == WRITES[name]


def _die(ports: Ports, name: str, at: int, fault: Fault, run_id: str) -> None:
    _play(watched(ports, Writes(at, fault, die)), name, run_id)


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize(("name", "at"), CASES)
def test_killed_at_any_write_the_run_ends_whole_or_gone(
    ports: Ports, stores: Stores, name: str, at: int, fault: Fault
) -> None:
    run = synthetic.start(ports)
    child = stores.process(_die, name, at, fault, run.run_id)
    child.join(30)
    assert child.exitcode == -9

    ended = _to_the_end(later(ports), _runbooks(name), run.run_id)

    _is_whole_or_gone(ports, ended)


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize(("name", "at"), CASES)
def test_told_as_failed_at_any_write_the_run_ends_whole_or_gone(
    ports: Ports, name: str, at: int, fault: Fault
) -> None:
    run, ticking = synthetic.start(ports), later(ports)

    _play(watched(ticking, Writes(at, fault, outage)), name, run.run_id)

    _is_whole_or_gone(ports, _to_the_end(ticking, _runbooks(name), run.run_id))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose chains the reaper sends."""
    told: list[str] = []
    monkeypatch.setattr(reap, "send", lambda _runbooks, run: told.append(run.run_id))
    return told


def test_a_run_that_waits_costs_nothing_until_its_gate_opens(
    ports: Ports, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ggen.runs")
    run, ticking = synthetic.start(ports, is_open=False), later(ports)
    assert isinstance(ticking.clock, LaterClock)
    assert _chain(ticking, synthetic.known(), run.run_id)[-1] is Ending.PUT_OFF
    waiting = run_of(ports, run.run_id)
    assert waiting.journal["synthetic.wait"].wait
    shown = run_reports.journal(waiting)
    assert "waiting synthetic.wait" in shown
    assert ": the gate is closed" in shown
    revision = ports.documents.get(paths.run_path(run.run_id))

    for _ in range(4):
        ticking.clock.sleep(120)
        ports.memory.drop_tick(f"wait:{run.run_id}")
        reap.look(ticking, synthetic.known())
    assert sent == []
    assert ports.documents.get(paths.run_path(run.run_id)) == revision

    synthetic.open_gate(ports, run.run_id)
    ports.memory.drop_tick(f"wait:{run.run_id}")
    reap.look(ticking, synthetic.known())

    assert sent == [run.run_id]
    assert _to_the_end(ticking, synthetic.known(), run.run_id).state is RunState.COMPLETE
    assert caplog.text.count("synthetic.wait") == 2  # as it begins, and as it ends


def test_a_wait_that_takes_too_long_fails_the_run(ports: Ports, sent: list[str]) -> None:
    run, ticking = synthetic.start(ports, is_open=False), later(ports)
    assert isinstance(ticking.clock, LaterClock)
    _chain(ticking, synthetic.known(), run.run_id)

    ticking.clock.sleep(601)
    reap.look(ticking, synthetic.known())

    assert sent == [run.run_id]
    ended = _to_the_end(ticking, synthetic.known(), run.run_id)
    assert (ended.state, ended.error_code) == (RunState.FAILED, "wait-limit")
    _is_whole_or_gone(ports, ended)


def test_a_step_that_acts_when_it_is_late_goes_on(ports: Ports) -> None:
    steps = tuple(
        dataclasses.replace(s, when_late="acts") if s.name == "synthetic.wait" else s
        for s in RUNBOOK.steps
    )
    runbooks = {**synthetic.known(), RUNBOOK.name: dataclasses.replace(RUNBOOK, steps=steps)}
    run, ticking = synthetic.start(ports, is_open=False), later(ports)
    assert isinstance(ticking.clock, LaterClock)
    _chain(ticking, runbooks, run.run_id)

    ticking.clock.sleep(601)

    assert _to_the_end(ticking, runbooks, run.run_id).state is RunState.COMPLETE


def test_a_run_cancelled_while_it_waits_is_undone(ports: Ports, sent: list[str]) -> None:
    run, ticking = synthetic.start(ports, is_open=False), later(ports)
    _chain(ticking, synthetic.known(), run.run_id)

    operators.cancel(ticking, synthetic.known(), run.run_id, "alice", "wrong")
    reap.look(ticking, synthetic.known())

    assert sent == [run.run_id]
    ended = _to_the_end(ticking, synthetic.known(), run.run_id)
    assert ended.state is RunState.CANCELLED
    assert ports.documents.get(f"made/{run.run_id}") is None


def test_waiting_for_a_moment_asks_nothing_before_it(ports: Ports) -> None:
    ticking = later(ports)
    moment = ticking.clock.now() + timedelta(seconds=5)
    assert isinstance(ticking.clock, LaterClock)

    wait = waits.until(ticking, moment, "a minute after it was applied")
    assert wait is not None
    assert wait.until is not None
    ticking.clock.sleep(6)
    assert waits.until(ticking, moment, "") is None


def test_the_last_child_wakes_its_parent(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    run = synthetic.start(ports)
    assert _chain(ports, synthetic.known(), run.run_id)[-1] is Ending.PUT_OFF  # it waits for them
    woken: list[str] = []
    monkeypatch.setattr(journal, "send", lambda _runbooks, run: woken.append(run.run_id))
    first, second = journal.children(ports, run.run_id, only_open=True, limit=9)

    _chain(ports, synthetic.known(), first.run_id)
    assert woken == []
    _chain(ports, synthetic.known(), second.run_id)
    assert woken == [run.run_id]


def test_runs_of_an_undone_run_are_undone_too(ports: Ports) -> None:
    run, ticking = synthetic.start(ports), later(ports)
    _chain(ticking, synthetic.known(), run.run_id)

    operators.cancel(ticking, synthetic.known(), run.run_id, "alice", "wrong")
    for _ in range(2):  # it acknowledges, then it is undone
        _chain(ticking, synthetic.known(), run.run_id)
    _to_the_end(ticking, synthetic.known(), run.run_id)

    assert run_of(ports, run.run_id).state is RunState.CANCELLED
    children = journal.children(ports, run.run_id, only_open=False, limit=9)
    assert {child.state for child in children} == {RunState.CANCELLED}


def _work(ports: Ports, run_id: str, seed: int) -> None:
    """A worker that dies by chance."""
    random.seed(seed)
    at = random.randrange(1, 60)
    watched_ports = watched(ports, Writes(at, random.choice(["lost", "landed"]), die))
    for _ in range(3):
        _chain(watched_ports, synthetic.known(), run_id)


def test_a_thousand_members_are_each_done_once_whoever_is_killed(
    ports: Ports, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "CHUNK", 10)
    synthetic.populate(ports, 1000, first=MEMBERS)
    run = synthetic.start(ports, children=0)
    for seed in range(6):
        worker = stores.process(_work, run.run_id, seed)
        worker.join(60)

    ended = _to_the_end(later(ports), synthetic.known(), run.run_id)

    assert ended.state is RunState.COMPLETE
    assert ended.journal["synthetic.each"].members == 1000
    assert synthetic.counts(ports) == {1}
    assert len(str(ended.document())) < 10_000  # the journal holds a cursor, not the members


def test_a_population_too_large_for_one_message_is_handed_over(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "HAND_OVER_S", -1.0)
    sent: list[str] = []
    monkeypatch.setattr(spread, "send", lambda _runbooks, run: sent.append(run.run_id))
    run = synthetic.start(ports, children=0)

    endings = _chain(ports, synthetic.known(), run.run_id)

    assert endings[-1] is Ending.PUT_OFF
    assert sent == [run.run_id]
    assert run_of(ports, run.run_id).journal["synthetic.each"].members == synthetic.CHUNK
    assert _to_the_end(later(ports), synthetic.known(), run.run_id).state is RunState.COMPLETE
    assert synthetic.counts(ports) == {1}


def test_two_chains_of_one_run_at_once_do_everything_once(ports: Ports, stores: Stores) -> None:
    run = synthetic.start(ports)
    workers = [stores.process(_play, "succeeds", run.run_id) for _ in range(3)]
    for worker in workers:
        worker.join(60)

    _is_whole_or_gone(ports, _to_the_end(later(ports), synthetic.known(), run.run_id))


def test_any_trigger_starts_a_run_once(ports: Ports) -> None:
    first = synthetic.start(ports)

    assert intake.begin(ports, RUNBOOK, first) == run_of(ports, first.run_id)
    other = first.evolve(inputs={"account_id": ACCOUNT, "children": 7})
    with pytest.raises(ConflictError) as reused:
        intake.begin(ports, RUNBOOK, other)
    assert reused.value.code == "key-reused"


def test_inputs_that_the_runbook_refuses_start_nothing(ports: Ports) -> None:
    with pytest.raises(InputError, match="account_id") as refused:
        intake.new_run(
            ports,
            RUNBOOK,
            {"account_id": "no account"},
            account_id=ACCOUNT,
            trigger=Trigger.SCHEDULE,
            dedupe_key="k",
        )
    assert refused.value.code == "invalid-inputs"
    assert _open_runs(ports) == []


def test_runs_of_one_turn_go_one_at_a_time_whatever_their_account(ports: Ports) -> None:
    def new(key: str, account_id: str) -> Run:
        return intake.begin(
            ports,
            RUNBOOK,
            intake.new_run(
                ports,
                RUNBOOK,
                {"account_id": account_id, "children": 0},
                account_id=account_id,
                trigger=Trigger.COMMAND,
                dedupe_key=key,
                turn="platform",
            ),
        )

    first, second = new("1", "acme"), new("2", "other")
    for run in (first, second):
        synthetic.open_gate(ports, run.run_id)

    assert _chain(ports, synthetic.known(), second.run_id) == [Ending.PUT_OFF]
    _chain(ports, synthetic.known(), first.run_id)
    assert run_of(ports, first.run_id).state is RunState.COMPLETE
    _chain(ports, synthetic.known(), second.run_id)
    assert run_of(ports, second.run_id).state is RunState.COMPLETE


def test_a_link_that_comes_late_or_is_unknown_changes_nothing(ports: Ports) -> None:
    run, ticking = synthetic.start(ports), later(ports)
    _play(ticking, "undone", run.run_id)
    ended = run_of(ports, run.run_id)

    late = step.run_link(ticking, _runbooks("undone"), "synthetic.make.undo", run.run_id)
    unknown = step.run_link(ticking, _runbooks("undone"), "synthetic.none", run.run_id)

    assert (late.ending, unknown.ending) == (Ending.ALREADY_DONE, Ending.PUT_OFF)
    assert run_of(ports, run.run_id) == ended


def _with(step_name: str, **changes: Any) -> Runbooks:
    """The synthetic runbook with one step declared otherwise; its definition stays."""
    steps = tuple(
        dataclasses.replace(s, **changes) if s.name == step_name else s for s in RUNBOOK.steps
    )
    return {**synthetic.known(), RUNBOOK.name: dataclasses.replace(RUNBOOK, steps=steps)}


def _waiting(ports: Ports, runbooks: Runbooks) -> Run:
    run = synthetic.start(ports, is_open=False)
    assert _chain(ports, runbooks, run.run_id)[-1] is Ending.PUT_OFF
    return run_of(ports, run.run_id)


def test_a_run_that_is_undone_while_its_journal_holds_a_wait_is_taken_up(
    ports: Ports, sent: list[str]
) -> None:
    ticking = later(ports)
    run = _waiting(ticking, synthetic.known())
    upgraded = _with("synthetic.wait", version=2)
    _chain(ticking, upgraded, run.run_id)
    assert run_of(ports, run.run_id).state is RunState.COMPENSATING
    assert isinstance(ticking.clock, LaterClock)
    ticking.clock.sleep(5)

    reap.look(ticking, upgraded)

    assert sent == [run.run_id]


@pytest.mark.parametrize("error", [InputError("x", "x"), KeyError("a bug")])
def test_a_wait_that_cannot_be_asked_for_fails_its_run(
    ports: Ports, sent: list[str], error: Exception
) -> None:
    ticking = later(ports)
    run = _waiting(ticking, synthetic.known())

    def raises(_ports: Ports, _run: Run) -> None:
        raise error

    broken = _with("synthetic.wait", ready=raises)
    reap.look(ticking, broken)

    assert sent == [run.run_id]
    ended = _to_the_end(ticking, broken, run.run_id)
    assert ended.state not in (RunState.COMPLETE, *RUN_OPEN)


def test_a_wait_whose_store_is_away_stops_no_sweep_and_ends_at_its_limit(
    ports: Ports, sent: list[str]
) -> None:
    ticking = later(ports)
    assert isinstance(ticking.clock, LaterClock)
    first = _waiting(ticking, synthetic.known())
    other = intake.begin(ports, synthetic.CHILD, synthetic.child(ports, first, 99))

    def away(_ports: Ports, _run: Run) -> None:
        raise OutageError("documents-unavailable", "no answer")

    broken = _with("synthetic.wait", ready=away)
    ticking.clock.sleep(30)
    reap.look(ticking, broken)
    assert sent == [other.run_id]

    ticking.clock.sleep(601)
    ports.memory.drop_tick(f"wait:{first.run_id}")
    reap.look(ticking, broken)
    assert first.run_id in sent


def test_a_step_that_has_acted_does_not_wait_again_and_is_undone(ports: Ports) -> None:
    ticking = later(ports)
    asked: list[int] = []

    def once(_ports: Ports, _run: Run) -> Wait | None:
        asked.append(1)
        return None if len(asked) == 1 else Wait(reason="the condition has flipped")

    def acts(ports: Ports, run: Run) -> Result:
        ports.signals.create(run.account_id, "us-central1")
        raise OutageError("down", "after it has acted")

    flipping = _with("synthetic.topic", ready=once, act=acts)
    run = synthetic.start(ports)
    _chain(ticking, flipping, run.run_id)
    _chain(ticking, flipping, run.run_id)
    assert run_of(ports, run.run_id).journal["synthetic.topic"].state == "intent"

    operators.cancel(ticking, flipping, run.run_id, "alice", "wrong")
    _to_the_end(ticking, flipping, run.run_id)

    assert ports.signals.look(ACCOUNT, "us-central1") is Topic.ABSENT


@pytest.mark.parametrize("has_begun_to_wait", [False, True])
def test_a_step_whose_condition_cannot_be_read_does_not_act(
    ports: Ports, has_begun_to_wait: bool
) -> None:
    ticking = later(ports)

    def away(_ports: Ports, _run: Run) -> None:
        raise OutageError("documents-unavailable", "no answer")

    run = synthetic.start(ports, is_open=False)
    if has_begun_to_wait:
        _chain(ticking, synthetic.known(), run.run_id)
    assert _chain(ticking, _with("synthetic.wait", ready=away), run.run_id)[-1] is Ending.PUT_OFF

    _chain(ticking, synthetic.known(), run.run_id)

    assert run_of(ports, run.run_id).journal["synthetic.wait"].state == "waiting"


def test_the_limit_of_a_wait_holds_whatever_moment_it_waits_for(
    ports: Ports, sent: list[str]
) -> None:
    ticking = later(ports)
    assert isinstance(ticking.clock, LaterClock)

    def in_an_hour(ports: Ports, _run: Run) -> Wait | None:
        return waits.until(ports, ports.clock.now() + timedelta(hours=1), "an hour")

    long = _with("synthetic.wait", ready=in_an_hour)
    run = _waiting(ticking, long)
    ticking.clock.sleep(601)

    reap.look(ticking, long)

    assert sent == [run.run_id]
    assert _to_the_end(ticking, long, run.run_id).error_code == "wait-limit"


def test_time_that_was_waited_is_given_back_once(ports: Ports) -> None:
    ticking = later(ports)
    assert isinstance(ticking.clock, LaterClock)

    def down(_ports: Ports, _run: Run) -> Result:
        raise OutageError("down", "down")

    failing = _with("synthetic.wait", act=down)
    run = _waiting(ticking, failing)
    began = instant(run.deadline_at)
    ticking.clock.sleep(100)
    synthetic.open_gate(ports, run.run_id)

    for _ in range(3):
        _chain(ticking, failing, run.run_id)
        ticking.clock.sleep(20)

    assert instant(run_of(ports, run.run_id).deadline_at) - began < timedelta(seconds=105)
    ended = _to_the_end(ticking, failing, run.run_id)
    assert (ended.state, ended.error_code) == (RunState.FAILED, "run-deadline")


def test_members_that_others_change_meanwhile_are_done_all_the_same(ports: Ports) -> None:
    meddled: list[str] = []

    class Meddling:
        """Another process changes a member between the scan and the commit of each part."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

        def commit(self, writes: Any) -> list[str]:
            member = next((w for w in writes if w.path.startswith("members/")), None)
            if member and member.path not in meddled:
                meddled.append(member.path)
                found = ports.documents.get(member.path)
                assert found
                changed = Update(found.path, {**found.data, "other": 1}, found.revision)
                ports.documents.commit([changed])
            return ports.documents.commit(writes)

    run = synthetic.start(ports)
    meddling = dataclasses.replace(ports, documents=Meddling())  # type: ignore[arg-type]

    ended = _to_the_end(later(meddling), synthetic.known(), run.run_id)

    assert meddled
    _is_whole_or_gone(ports, ended)


def test_a_run_cancelled_while_it_works_through_its_population_is_undone_at_once(
    ports: Ports,
) -> None:
    run = synthetic.start(ports)

    def cancelling(ports: Ports, run: Run, cursor: str) -> Any:
        if cursor:
            operators.cancel(ports, synthetic.known(), run.run_id, "alice", "wrong")
        return synthetic.each(ports, run, cursor)

    _chain(ports, _with("synthetic.each", chunk=cancelling), run.run_id)
    assert run_of(ports, run.run_id).state is RunState.COMPENSATING

    assert _chain(ports, synthetic.known(), run.run_id)[-1] is Ending.DONE  # no claim is in the way
    assert run_of(ports, run.run_id).state is RunState.CANCELLED
    assert synthetic.counts(ports) == {0}


def test_a_version_without_the_step_that_went_through_a_population_does_not_undo_the_run(
    ports: Ports,
) -> None:
    ticking, run = later(ports), synthetic.start(ports)
    for_ever = Wait(reason="the test")
    _chain(ticking, _with("synthetic.join", ready=lambda _ports, _run: for_ever), run.run_id)
    kept = tuple(s for s in RUNBOOK.steps if s.name != "synthetic.each")
    without = {**synthetic.known(), RUNBOOK.name: dataclasses.replace(RUNBOOK, steps=kept)}
    for _ in range(3):
        _chain(ticking, without, run.run_id)

    assert run_of(ports, run.run_id).state in RUN_OPEN  # it is put off, for one that knows it
    ended = _to_the_end(ticking, synthetic.known(), run.run_id)
    assert ended.state is RunState.FAILED
    assert synthetic.counts(ports) == {0}


def test_another_attempt_at_a_run_starts_runs_of_its_own(ports: Ports) -> None:
    ticking = later(ports)
    run = synthetic.start(ports)
    _to_the_end(ticking, _runbooks("undone"), run.run_id)

    again = operators.resume(ticking, synthetic.known(), run.run_id)

    assert again.attempt == 2
    ended = _to_the_end(ticking, synthetic.known(), run.run_id)
    assert ended.state is RunState.COMPLETE
    assert len(journal.children(ports, run.run_id, only_open=False, limit=9)) == 4


def test_a_child_has_a_turn_of_its_own(ports: Ports) -> None:
    run = synthetic.start(ports)

    child = synthetic.child(ports, run, 1)

    assert child.turn != run.turn


def test_a_commit_that_landed_and_was_told_as_failed_is_shown_as_done(ports: Ports) -> None:
    run = synthetic.start(ports)

    class Landed:
        """Each commit of a step's end lands, and is told as failed to the very end."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

        def commit(self, writes: Any) -> list[str]:
            revisions = ports.documents.commit(writes)
            entry = writes[0].data.get("journal", {}).get("synthetic.make", {})
            if entry.get("state") == "done":
                raise OutageError("injected", "it landed")
            return revisions

    broken = dataclasses.replace(later(ports), documents=Landed())  # type: ignore[arg-type]
    runbooks = synthetic.known()
    first = step.run_link(broken, runbooks, "synthetic.choose", run.run_id)
    second = step.run_link(broken, runbooks, "synthetic.make", run.run_id)

    assert (first.ending, second.ending) == (Ending.DONE, Ending.DONE)


def test_a_run_that_no_marketplace_delivers_again_alerts_when_it_fails(ports: Ports) -> None:
    run = synthetic.start(ports)

    _to_the_end(later(ports), _runbooks("undone"), run.run_id)

    raised = [r for r in receipts(ports) if r["operation"] == "alert_raised"]
    assert [r["cause"] for r in raised] == ["run_failed"]
