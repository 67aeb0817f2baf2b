"""Runs whose processes overtake each other, die, stand still, or meet another version of the code."""

import dataclasses
import multiprocessing
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from adapters.local.system import started_s
from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RunState
from governor.records import ProcessClaim
from governor.runs import JournalEntry, Run
from governor.times import instant
from ports import Ports
from ports.alerts import Alert
from ports.documents import Query, Update
from ports.signals import Topic
from tasks import ticks
from tasks.marketplace import begin, new_run
from tasks.runbooks import RUNBOOKS
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs import failure, operators, reap
from tasks.runs.compensate import PARK_AFTER
from tasks.runs.definition import Result, Runbook
from tasks.runs.journal import STEP_MAX_AGE_S
from tasks.runs.plan import plan
from tests.engine.conftest import event
from tests.support.runs import (
    LaterClock,
    carry_on,
    everything_is_there,
    failing,
    later,
    nothing_is_left,
    operations,
    play,
    play_to_the_end,
    play_until,
    receipts,
    run_of,
    subscribe,
    text_of,
    with_step,
)

FAILS = ConflictError("x", "it fails")


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "PATIENCE_S", 0.1)


def _sleep(ports: Ports, seconds: float) -> None:
    assert isinstance(ports.clock, LaterClock)
    ports.clock.sleep_until(ports.clock.now() + timedelta(seconds=seconds))


# -- undoing what others did


def test_an_undo_in_conflict_is_put_off_and_parked_like_any_other(ports: Ports) -> None:
    def refuses(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
        raise ConflictError("precondition", "the topic has another etag")

    ticking = later(ports)
    broken = failing("entitlement_lifecycle.finish", FAILS)
    stuck = with_step("deploy_sku.signals", undo=refuses, runbook=broken)
    run = begin(ticking, event(), b"{}")
    for _ in range(PARK_AFTER):
        parked = play(ticking, run.run_id, stuck)
        assert parked.retry_at
        ticking.clock.sleep_until(instant(parked.retry_at))  # type: ignore[attr-defined]

    assert parked.state is RunState.PARKED
    assert operations(ports) == ["compensation_failed", "alert_raised"]
    assert play_to_the_end(ticking, run.run_id).state is RunState.FAILED
    assert nothing_is_left(ports)


def _without(step_name: str, runbook: Runbook = RUNBOOK) -> Runbook:
    kept = tuple(s for s in runbook.steps if s.name != step_name)
    return dataclasses.replace(runbook, steps=kept)


def test_a_version_without_the_last_step_undoes_a_run_that_had_come_to_it(ports: Ports) -> None:
    run = play_until(ports, event(), "entitlement_lifecycle.finish")

    ended = play(ports, run.run_id, _without("entitlement_lifecycle.finish"))

    assert (ended.state, ended.error_code) == (RunState.FAILED, "definition-changed")
    assert nothing_is_left(ports)


def test_a_step_this_version_does_not_know_is_never_skipped_in_an_undo(ports: Ports) -> None:
    ticking = later(ports)
    run = play_until(ticking, event(), "deploy_sku.governor")

    half = play(ticking, run.run_id, _without("deploy_sku.signals"))

    assert half.state is RunState.COMPENSATING
    assert ports.signals.look("acme", "us-central1") is Topic.READY
    assert [e.state for e in half.journal.values()] == ["done"] * 3  # nothing half undone
    assert play_to_the_end(ticking, run.run_id).state is RunState.FAILED  # one that knows it
    assert nothing_is_left(ports)


def test_what_a_version_that_knew_it_has_undone_holds_up_no_other(ports: Ports) -> None:
    def fails(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
        raise OutageError("down", "down")

    ticking = later(ports)
    broken = failing("deploy_sku.governor", FAILS)
    half = with_step("deploy_sku.documents", undo=fails, runbook=broken)
    run = begin(ticking, event(), b"{}")
    play(ticking, run.run_id, half)
    assert run_of(ports, run.run_id).journal["deploy_sku.signals"].state == "undone"

    ended = play_to_the_end(ticking, run.run_id, _without("deploy_sku.signals"))

    assert ended.state is RunState.FAILED
    assert nothing_is_left(ports)


def test_a_run_that_has_not_begun_is_not_touched_by_an_upgrade(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")
    found = ports.documents.get(paths.run_path(run.run_id))
    assert found
    older = run.evolve(definition_sha256="0" * 64)
    ports.documents.commit([Update(found.path, older.document(), found.revision)])

    assert play(ports, run.run_id).state is RunState.COMPLETE


def test_the_topic_of_a_governor_in_service_is_never_undone(ports: Ports) -> None:
    subscribe(ports, event())
    ports.signals.delete("acme")  # lost by accident
    changing = event(event_id="e-2", plan_type="professional")
    run = play_until(ports, changing, "deploy_sku.governor")
    ports.signals.publish("acme", b"{}")

    play(ports, run.run_id, failing("deploy_sku.governor", FAILS))

    assert everything_is_there(ports)
    assert ports.signals.backlog("acme") == 1


@pytest.mark.parametrize(
    "step_name", ["deploy_sku.documents", "deploy_sku.signals", "deploy_sku.governor"]
)
@pytest.mark.parametrize("by", ["another run", "another attempt"])
def test_a_stale_undo_touches_nothing_that_was_made_later(
    ports: Ports, step_name: str, by: str
) -> None:
    stale = play_until(ports, event(), "entitlement_lifecycle.finish")
    play(ports, stale.run_id, failing("entitlement_lifecycle.finish", FAILS))
    again = event(event_id="e-2") if by == "another run" else event()
    subscribe(ports, again)
    assert everything_is_there(ports)

    RUNBOOK.step(step_name).undo(ports, stale, stale.journal[step_name])

    assert everything_is_there(ports)


# -- processes that die, or live too long


def _claim_of(ports: Ports, process: "subprocess.Popen[bytes]") -> ProcessClaim:
    return ports.processes.claim(ports.clock.now()).evolve(
        pid=process.pid, process_started=started_s(process.pid)
    )


def _put_to_work(ports: Ports, run: Run, process: "subprocess.Popen[bytes]") -> None:
    """The journal says that another process is at the run's third step."""
    found = ports.documents.get(paths.run_path(run.run_id))
    assert found
    entry = JournalEntry(state="intent", claim=_claim_of(ports, process))
    at_work = run.evolve(journal={**run.journal, "deploy_sku.signals": entry})
    ports.documents.commit([Update(found.path, at_work.document(), found.revision)])


def test_a_process_that_stood_still_too_long_is_killed_before_its_step_is_taken_over(
    ports: Ports,
) -> None:
    ticking = later(ports)
    run = play_until(ticking, event(), "deploy_sku.signals")
    other = subprocess.Popen(["sleep", "600"])
    _put_to_work(ports, run, other)

    _sleep(ticking, STEP_MAX_AGE_S + 1)
    assert play(ticking, run.run_id).state is RunState.COMPLETE

    assert other.wait(5) == -9


class _AwayAfter:
    """Documents that stop answering at a moment."""

    def __init__(self, ports: Ports) -> None:
        self._inner, self.is_away = ports.documents, False

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise OutageError("documents-unavailable", "no answer")
        return getattr(self._inner, name)


@pytest.mark.parametrize("doing", ["act", "undo"])
def test_a_process_that_can_store_no_outcome_dies_so_that_its_claim_is_free(
    ports: Ports, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    from tasks.receipts import commit

    monkeypatch.setattr(commit, "LANDING_PATIENCE_S", 0.2)
    documents = _AwayAfter(ports)
    away = dataclasses.replace(ports, documents=documents)  # type: ignore[arg-type]

    def act(_ports: Ports, _run: Run) -> Result:
        documents.is_away = True
        return Result()

    def undo(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
        documents.is_away = True

    runbook = with_step("deploy_sku.signals", act=act)
    if doing == "undo":
        runbook = with_step(
            "deploy_sku.signals", undo=undo, runbook=failing("deploy_sku.governor", FAILS)
        )
    run = begin(ports, event(), b"{}")
    ports.documents.close()
    ports.memory.close()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: carry_on(away, runbook, run.run_id)
    )
    child.start()
    child.join(30)

    assert child.exitcode == -9
    ended = play_to_the_end(later(ports), run.run_id, RUNBOOK)
    assert ended.state is (RunState.COMPLETE if doing == "act" else RunState.FAILED)


# -- the reaper


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    started: list[str] = []
    monkeypatch.setattr(reap, "send", lambda _runbooks, run: started.append(run.run_id))
    return started


def test_the_reaper_repeats_what_was_dropped(ports: Ports, restarted: list[str]) -> None:
    ticking = later(ports)
    fresh = begin(ticking, event(), b"{}")
    between = play_until(ticking, event(event_id="e-2", account_id="other"), "deploy_sku.signals")

    ticks.look(ticking)
    assert restarted == []
    _sleep(ticking, 3)
    ticks.look(ticking)

    assert sorted(restarted) == sorted([fresh.run_id, between.run_id])
    ticks.look(ticking)
    assert len(restarted) == 2  # not again at once


def test_the_reaper_takes_up_at_once_what_a_dead_process_left(
    ports: Ports, restarted: list[str]
) -> None:
    run = play_until(ports, event(), "deploy_sku.signals")
    other = subprocess.Popen(["sleep", "600"])
    _put_to_work(ports, run, other)

    ticks.look(ports)
    assert restarted == []
    other.kill()
    other.wait()
    ticks.look(ports)

    assert restarted == [run.run_id]


def test_the_reaper_leaves_what_waits_for_its_turn_or_its_time(
    ports: Ports, restarted: list[str]
) -> None:
    ticking = later(ports)
    first = begin(ticking, event(), b"{}")
    off = play(ticking, first.run_id, failing("deploy_sku.signals", OutageError("d", "down")))
    waiting = begin(ticking, event(event_id="e-2"), b"{}")
    _sleep(ticking, 3)
    assert off.retry_at

    ticks.look(ticking)
    assert restarted == [first.run_id]  # its time had come
    operators.cancel(ticking, RUNBOOKS, waiting.run_id, "alice", "")
    ticks.look(ticking)
    assert restarted[1:] == [waiting.run_id]


def test_a_run_of_a_runbook_nobody_knows_keeps_no_other_from_being_looked_at(
    ports: Ports, restarted: list[str]
) -> None:
    ticking = later(ports)
    foreign = begin(ticking, event(), b"{}")
    found = ports.documents.get(paths.run_path(foreign.run_id))
    assert found
    ports.documents.commit(
        [Update(found.path, {**found.data, "runbook": "of tomorrow"}, found.revision)]
    )
    known = begin(ticking, event(event_id="e-2", account_id="other"), b"{}")
    _sleep(ticking, 3)

    ticks.look(ticking)

    assert restarted == [known.run_id]


# -- who is told


def test_a_run_that_had_to_wait_for_workers_still_begins(ports: Ports) -> None:
    ticking = later(ports)
    run = begin(ticking, event(), b"{}")
    _sleep(ticking, 300)

    assert play(ticking, run.run_id).state is RunState.COMPLETE


def test_a_failure_nobody_delivers_again_is_alarmed(ports: Ports) -> None:
    quick = begin(ports, event(), b"{}")
    play(ports, quick.run_id, failing("deploy_sku.signals", FAILS))
    assert operations(ports) == ["entitlement_failed"]  # answered 503: it comes again

    ticking = later(ports)
    slow = begin(ticking, event(event_id="e-2"), b"{}")
    _sleep(ticking, 6)  # it was answered 202 by now
    play(ticking, slow.run_id, failing("deploy_sku.signals", FAILS))
    assert receipts(ports)[-1]["cause"] == "run_failed"


def test_no_boot_is_alarmed_that_was_never_tried(ports: Ports) -> None:
    ticking = later(ports)
    run = play_until(ticking, event(), "deploy_sku.governor")
    _sleep(ticking, 61)

    ended = play(ticking, run.run_id)

    assert (ended.failed_step, ended.error_code) == ("deploy_sku.governor", "run-deadline")
    assert receipts(ports)[-1]["cause"] == "run_failed"


def test_an_alert_is_sent_even_if_nothing_after_its_commit_works(ports: Ports) -> None:
    sent: list[Alert] = []

    class Heard:
        def send(self, alert: Alert) -> None:
            sent.append(alert)

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

        def scan(self, query: Query) -> Any:
            if query.collection == "runs":
                raise OutageError("documents-unavailable", "no answer")
            return ports.documents.scan(query)

    broken = dataclasses.replace(ports, alerts=Heard(), documents=Deaf())  # type: ignore[arg-type]
    run = begin(ports, event(), b"{}")

    play(broken, run.run_id, failing("deploy_sku.documents", KeyError("a bug")))

    assert [a.cause for a in sent] == ["run_fault"]
    assert operations(ports) == ["entitlement_failed", "alert_raised"]


@pytest.mark.parametrize("error", [OutageError("down", "down"), KeyError("a bug"), FAILS])
def test_a_cancelled_run_says_so_whatever_else_failed(ports: Ports, error: Exception) -> None:
    def meanwhile(ports: Ports, run: Run) -> Result:
        if not run_of(ports, run.run_id).cancellation:
            operators.cancel(ports, RUNBOOKS, run.run_id, "alice", "wrong customer")
        raise error

    ticking = later(ports)
    run = begin(ticking, event(), b"{}")
    runbook = with_step("deploy_sku.governor", act=meanwhile)
    ended = play_to_the_end(ticking, run.run_id, runbook)

    assert ended.state is RunState.CANCELLED
    assert operations(ports) == ["entitlement_failed", "run_cancelled"]
    failed = receipts(ports)[0]
    assert (failed["error_code"], failed["retryable"]) == ("run-cancelled", False)
    assert "alice" not in text_of(ports, failed)  # the marketplace reads this one
    assert nothing_is_left(ports)


def test_what_a_bug_says_stays_in_the_log(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")

    play(ports, run.run_id, failing("deploy_sku.signals", KeyError("/srv/secret/place")))

    told = text_of(ports, receipts(ports)[0])
    assert "secret" not in told
    assert "KeyError" in told


# -- what comes again


def _changes(*deliveries: dict[str, Any], ports: Ports) -> str:
    """Deliver plan changes, the first of which is refused for now; the plan afterwards."""
    subscribe(ports, event())
    first, *others = [event(event_type="entitlement.plan_changed", **each) for each in deliveries]
    play(ports, begin(ports, first, b"{}").run_id, failing("deploy_sku.documents", FAILS))
    for each in others:
        subscribe(ports, each)
    (entitlement,) = ports.documents.scan(Query("tenants/acme/entitlements"))
    return str(entitlement.data["plan_type"])


def _at(second: int) -> str:
    return f"2026-11-23T12:00:{second:02}.000000Z"


def test_a_refused_event_that_names_its_time_stays_as_old_as_it_says(ports: Ports) -> None:
    old = {"event_id": "e-2", "plan_type": "professional", "event_time": _at(10)}
    new = {"event_id": "e-3", "plan_type": "enterprise", "event_time": _at(20)}

    assert _changes(old, new, old, ports=ports) == "enterprise"


def test_the_arrival_of_a_refused_delivery_is_not_the_time_of_its_event(ports: Ports) -> None:
    arrived: dict[str, Any] = {
        "event_id": "e-2",
        "plan_type": "professional",
        "is_timed_by_arrival": True,
    }
    other = {"event_id": "e-3", "plan_type": "enterprise", "event_time": _at(20)}

    plan = _changes(
        {**arrived, "event_time": _at(10)}, other, {**arrived, "event_time": _at(30)}, ports=ports
    )

    assert plan == "professional"


def test_a_resumed_event_without_a_time_happens_now(ports: Ports) -> None:
    arrived = event(event_id="e-2", account_id="other", is_timed_by_arrival=True, event_time=_at(1))
    run = begin(ports, arrived, b"{}")
    play(ports, run.run_id, failing("deploy_sku.documents", FAILS))

    again = operators.resume(ports, RUNBOOKS, run.run_id)

    assert again.inputs["event_time"] > _at(59)


def test_a_plan_foresees_that_something_else_has_the_topics_name(ports: Ports, valkey: Any) -> None:
    import redis

    from adapters.valkey.streams import stream_key

    with redis.Redis.from_url(valkey.url) as client:
        client.set(stream_key("acme"), "somebody's")

    planned = plan(ports, RUNBOOK, new_run(ports, event(), b"{}"))

    assert planned.refusal
    assert planned.refusal[0] == "deploy_sku.signals"
    assert planned.refusal[1].code == "topic-misconfigured"
