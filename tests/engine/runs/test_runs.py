"""Runs: journalled, taken in turn, replayed, whatever write is lost."""

from collections.abc import Callable
from typing import Any

import pytest

from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RunState
from governor.runs import Effect
from ports import Ports
from ports.documents import Query, Update
from ports.signals import Topic
from tasks.marketplace import begin
from tasks.outcomes import Ending, put_off
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tests.engine.conftest import event
from tests.support.faults import Fault
from tests.support.runs import (
    everything_is_there,
    later,
    link,
    nothing_is_left,
    operations,
    play,
    play_to_the_end,
    play_until,
    receipts,
    run_of,
    subscribe,
)

COMMITS_OF_A_RUN = 9


def test_a_subscription_ends_with_everything_and_one_receipt(ports: Ports) -> None:
    run = subscribe(ports, event())

    (proof,) = receipts(ports)
    assert run.state is RunState.COMPLETE
    assert run.receipt_id == proof["receipt_id"]
    assert proof["resources"] == {
        "fsm_id": "governor-acme",
        "pubsub_topic": "tenants.acme.signals",
        "firestore_path": "/tenants/acme",
    }
    assert proof["quota"] == {"monthly_actions": 1000, "concurrent_actions": 5}
    assert everything_is_there(ports)


def test_the_journal_says_what_was_meant_and_what_was_created_or_found(ports: Ports) -> None:
    before = play_until(ports, event(), "deploy_sku.signals")
    meant: dict[str, Any] = {}

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(ports.signals, name)

        def create(self, account_id: str, region: str) -> None:
            meant.update(run_of(ports, before.run_id).journal["deploy_sku.signals"].effects)
            ports.signals.create(account_id, region)

    import dataclasses

    watched = dataclasses.replace(ports, signals=Watched())
    first = play(watched, before.run_id)
    second = subscribe(ports, event(event_id="e-2", sku_id="demo-sku", plan_type="enterprise"))

    topic = "tenants.acme.signals"
    assert meant == {topic: Effect.CREATE}
    assert first.journal["deploy_sku.signals"].effects == {topic: Effect.CREATED}
    assert second.journal["deploy_sku.signals"].effects == {topic: Effect.FOUND}
    assert second.journal["deploy_sku.documents"].effects == {
        "tenants/acme": Effect.FOUND,
        "tenants/acme/entitlements/demo-sku": Effect.CHANGED,
    }
    claim = first.journal["deploy_sku.signals"].claim
    assert claim
    assert claim.pid > 0


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", range(1, COMMITS_OF_A_RUN + 1))
def test_whichever_write_fails_once_there_is_one_governor_and_one_receipt(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports], fault: Fault, failing: int
) -> None:
    broken = faulty(fault, {failing})

    run = subscribe(broken, event())

    assert run.state is RunState.COMPLETE
    assert operations(ports) == ["entitlement_active"]
    assert broken.documents.commits >= COMMITS_OF_A_RUN  # type: ignore[attr-defined]


def test_a_run_makes_as_many_commits_as_are_broken_above(
    faulty: Callable[[Fault, set[int]], Ports],
) -> None:
    counting = faulty("lost", set())

    subscribe(counting, event())

    assert counting.documents.commits == COMMITS_OF_A_RUN  # type: ignore[attr-defined]


def test_a_replayed_message_changes_nothing(ports: Ports) -> None:
    run = subscribe(ports, event())

    assert play(ports, run.run_id) == run
    for each in RUNBOOK.steps:
        assert link(ports, each.name, run.run_id).ending is Ending.ALREADY_DONE
    assert run_of(ports, run.run_id) == run
    assert operations(ports) == ["entitlement_active"]


def test_a_message_without_a_run_changes_nothing(ports: Ports) -> None:
    told = link(ports, RUNBOOK.steps[0].name, "run-of-nobody")

    assert told == put_off("there is no such run")

    assert ports.documents.scan(Query("runs")) == []


def test_runs_of_one_account_take_turns_and_another_account_is_not_held_up(ports: Ports) -> None:
    first = play_until(ports, event(), "deploy_sku.signals")
    second = begin(ports, event(event_id="e-2", plan_type="professional"), b"2")
    other = begin(ports, event(event_id="e-3", account_id="other"), b"3")

    assert play(ports, second.run_id).state is RunState.PENDING  # it waits
    assert run_of(ports, second.run_id).journal == {}
    assert play(ports, other.run_id).state is RunState.COMPLETE

    assert play(ports, first.run_id).state is RunState.COMPLETE
    assert play(ports, second.run_id).state is RunState.COMPLETE
    assert operations(ports) == ["entitlement_active", "entitlement_active"]


def test_a_step_cannot_be_taken_before_its_predecessor_is_done(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")

    told = link(ports, RUNBOOK.steps[1].name, run.run_id)
    assert told == put_off("a step before it is not done")
    assert run_of(ports, run.run_id).journal == {}


def test_a_run_past_its_deadline_is_undone(ports: Ports) -> None:
    from datetime import timedelta

    from governor.times import instant
    from tests.support.runs import LaterClock

    ticking = later(ports)
    run = play_until(ticking, event(), "deploy_sku.governor")
    assert isinstance(ticking.clock, LaterClock)
    ticking.clock.sleep_until(instant(run.deadline_at) + timedelta(seconds=1))

    ended = play(ticking, run.run_id)

    assert (ended.state, ended.error_code) == (RunState.FAILED, "run-deadline")
    assert nothing_is_left(ports)


def test_a_run_whose_runbook_was_redefined_is_undone(ports: Ports) -> None:
    run = play_until(ports, event(), "deploy_sku.governor")
    found = ports.documents.get(paths.run_path(run.run_id))
    assert found
    older = run.evolve(definition_sha256="0" * 64)
    ports.documents.commit([Update(found.path, older.document(), found.revision)])

    ended = play(ports, run.run_id)

    assert (ended.state, ended.error_code) == (RunState.FAILED, "definition-changed")
    assert nothing_is_left(ports)


def test_one_event_id_is_one_run_and_another_content_is_refused(ports: Ports) -> None:
    first = subscribe(ports, event())

    assert begin(ports, event(), b"{}") == first
    assert begin(ports, event(), b"{ }") == first  # the same event in other bytes
    with pytest.raises(ConflictError) as refused:
        begin(ports, event(plan_type="enterprise"), b"{ }")
    assert refused.value.code == "event-id-reused"
    assert operations(ports) == ["entitlement_active"]


def test_no_signal_is_accepted_before_the_receipt_is_committed(ports: Ports) -> None:
    from tasks.actions.admit import Signal, submit

    asked = Signal("acme", "s", "demo.succeed", None, {})
    run = play_until(ports, event(), "entitlement_lifecycle.finish")
    with pytest.raises(OutageError):
        submit(ports, asked)

    play(ports, run.run_id)

    assert submit(ports, asked)


def test_a_governor_memory_forgot_is_told_to_it_again_by_its_first_signal(ports: Ports) -> None:
    from tasks.actions.admit import Signal, submit

    subscribe(ports, event())
    ports.memory.forget("acme", ports.memory.begin_boot())

    assert submit(ports, Signal("acme", "s", "demo.succeed", None, {}))


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_topic_harmed_since_is_made_good_by_the_next_run(
    ports: Ports, valkey: Any, harm: str
) -> None:
    import redis

    from adapters.valkey.streams import GROUP, stream_key

    subscribe(ports, event())
    if harm == "gone":
        ports.signals.delete("acme")
    else:
        with redis.Redis.from_url(valkey.url) as client:
            client.xgroup_destroy(stream_key("acme"), GROUP)
    assert ports.signals.look("acme", "us-central1") is not Topic.READY

    subscribe(ports, event(event_id="e-2"))

    assert everything_is_there(ports)


def test_a_topic_that_is_somebody_elses_is_refused_for_now_and_left(
    ports: Ports, valkey: Any
) -> None:
    import redis

    from adapters.valkey.streams import stream_key

    with redis.Redis.from_url(valkey.url) as client:
        client.set(stream_key("acme"), "somebody's")
        ticking = later(ports)
        run = play_to_the_end(ticking, begin(ticking, event(), b"{}").run_id)

        assert (run.state, run.error_code) == (RunState.FAILED, "topic-misconfigured")
        assert client.get(stream_key("acme")) == b"somebody's"
    assert ports.documents.get(paths.tenant_path("acme")) is None
    assert operations(ports) == ["entitlement_failed"]
