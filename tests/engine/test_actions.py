"""Actions: admitted durably, started at most once, ended once, undone, never orphaned."""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from governor import records
from governor.errors import ConflictError, DeniedError, InputError, OutageError
from governor.fsm import ActionState
from governor.records import Action
from ledger.receipt import SignedReceipt
from ledger.verify import Recorded, verify
from ports import Ports
from ports.memory import Slot
from tasks import degrade_to_safe_mode, reap
from tasks.execute_action import carry_out
from tasks.recover_action import take_over
from tasks.submit_signal import Signal, submit
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.engine.runs import subscribe
from tests.faults import Fault


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


class LaterClock:
    """The real clock, some seconds ahead."""

    def __init__(self, ports: Ports, ahead_s: float) -> None:
        self._inner, self._ahead = ports.clock, timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._inner.now() + self._ahead

    def monotonic_s(self) -> float:
        return self._inner.monotonic_s()


def _later(ports: Ports, seconds: float) -> Ports:
    return dataclasses.replace(ports, clock=LaterClock(ports, seconds))


def _signal(signal_id: str, kind: str = "demo.succeed", **payload: Any) -> Signal:
    return Signal("acme", signal_id, kind, None, payload)


def _action(ports: Ports, action_id: str) -> Action:
    found = ports.documents.get(records.action_path("acme", action_id))
    assert found
    return Action.model_validate(found.data)


def _receipts(ports: Ports, action_id: str) -> list[dict[str, Any]]:
    found = ports.documents.scan("tenants/acme/receipts", order_by="timestamp", limit=1000)
    fields = [SignedReceipt.model_validate(d.data).fields() for d in found]
    return [f for f in fields if f.get("action_id") == action_id]


def _operations(ports: Ports, action_id: str) -> list[str]:
    return [f["operation"] for f in _receipts(ports, action_id)]


def _in_flight(ports: Ports) -> int:
    return ports.memory.in_flight("acme", ["demo-sku"])


def _worker(ports: Ports, action_id: str) -> "multiprocessing.process.BaseProcess":
    """A process of its own that carries an action out; SQLite must not be open when it forks."""
    ports.documents.close()
    child = multiprocessing.get_context("fork").Process(
        target=carry_out, args=(ports, "acme", action_id)
    )
    child.start()
    return child


def _every_receipt_is_valid(ports: Ports) -> bool:
    for document in ports.documents.scan("tenants/acme/receipts", limit=1000):
        stored = SignedReceipt.model_validate(document.data)
        entry = Recorded(stored, document.path.rsplit("/", 1)[1], document.created_at)
        assert all(f.holds for f in verify(entry, account_id="acme", ring=ports.keys.ring()))
    return True


def test_a_good_action_is_complete_with_one_receipt_and_its_slot_free(ports: Ports) -> None:
    action_id = submit(ports, _signal("s"))
    assert _in_flight(ports) == 1

    carry_out(ports, "acme", action_id)

    assert _action(ports, action_id).state is ActionState.COMPLETE
    assert _operations(ports, action_id) == ["action_complete"]
    assert _in_flight(ports) == 0
    assert _every_receipt_is_valid(ports)


@pytest.mark.parametrize(
    ("kind", "payload", "state", "operations"),
    [
        ("demo.sleep", {"seconds": 5}, "rolled_back", ["action_timeout", "action_rolled_back"]),
        (
            "demo.fail",
            {"recoverable": True},
            "rolled_back",
            ["action_failed", "action_rolled_back"],
        ),
        ("demo.fail", {"recoverable": False}, "failed", ["action_failed"]),
        ("demo.fail", {}, "failed", ["action_failed"]),
    ],
    ids=["timeout", "recoverable", "unrecoverable", "payload refused"],
)
def test_each_bad_end_has_its_state_and_receipts(
    ports: Ports, kind: str, payload: dict[str, Any], state: str, operations: list[str]
) -> None:
    action_id = submit(ports, _signal("s", kind, **payload))

    carry_out(ports, "acme", action_id)

    assert _action(ports, action_id).state == state
    assert _operations(ports, action_id) == operations
    assert _in_flight(ports) == 0
    if state == "rolled_back":
        failure, undone = _receipts(ports, action_id)
        assert undone["previous_action_receipt_id"] == failure["receipt_id"]
    else:
        told = ports.documents.scan("tenants/acme/receipts", order_by="timestamp")[-1]
        assert told.data["operation"] == "alert_raised"


def test_a_failed_rollback_is_alarmed_and_tried_again_until_it_holds(ports: Ports) -> None:
    action_id = submit(ports, _signal("s", "demo.rollback_fails", times=2))
    carry_out(ports, "acme", action_id)

    assert _action(ports, action_id).state is ActionState.ROLLBACK_FAILED
    take_over(ports, "acme", action_id)  # not due yet
    assert _action(ports, action_id).rollback_attempts == 1
    take_over(_later(ports, 2), "acme", action_id)
    assert _action(ports, action_id).state is ActionState.ROLLBACK_FAILED
    take_over(_later(ports, 5), "acme", action_id)

    assert _action(ports, action_id).state is ActionState.ROLLED_BACK
    assert _operations(ports, action_id) == [
        "action_failed", "rollback_failed", "rollback_failed", "action_rolled_back",
    ]  # fmt: skip
    assert [r["rollback_attempt"] for r in _receipts(ports, action_id)[1:3]] == [1, 2]
    assert _in_flight(ports) == 0


def test_the_same_signal_again_is_the_same_action_and_costs_nothing(ports: Ports) -> None:
    first = submit(ports, _signal("s"))
    carry_out(ports, "acme", first)

    assert submit(ports, _signal("s")) == first
    carry_out(ports, "acme", first)
    assert _operations(ports, first) == ["action_complete"]
    assert ports.memory.used("acme", "demo-sku", _action(ports, first).month) == 1
    with pytest.raises(ConflictError):
        submit(ports, _signal("s", more=1))


def test_a_duplicate_memory_forgot_is_found_in_documents_and_refunded(
    ports: Ports, valkey: Valkey
) -> None:
    action_id = submit(ports, _signal("s"))
    carry_out(ports, "acme", action_id)
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{action_id}")
    later = _later(ports, 10)

    assert submit(later, _signal("s")) == action_id
    assert _in_flight(ports) == 0
    assert ports.memory.used("acme", "demo-sku", _action(ports, action_id).month) == 1
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{action_id}")
    with pytest.raises(ConflictError):
        submit(later, _signal("s", more=1))
    assert _in_flight(ports) == 0


def test_two_workers_with_one_message_start_it_once(ports: Ports) -> None:
    action_id = submit(ports, _signal("started once", "demo.sleep", seconds=0.2))
    workers = [_worker(ports, action_id) for _ in range(4)]
    for worker in workers:
        worker.join()

    demo = Path(os.environ["GGEN_STATE_DIR"], "demo-actions.jsonl").read_text()
    assert sum(action_id in line and '"start"' in line for line in demo.splitlines()) == 1
    assert _operations(ports, action_id) == ["action_complete"]


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "payload", "last"),
    [
        ("demo.succeed", {}, "action_complete"),
        ("demo.fail", {"recoverable": True}, "action_rolled_back"),
    ],
    ids=["complete", "rolled back"],
)
def test_whichever_write_fails_once_there_is_one_outcome(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports], fault: Fault, failing: int,
    kind: str, payload: dict[str, Any], last: str,
) -> None:  # fmt: skip
    broken = faulty(fault, {failing})

    action_id = submit(broken, _signal("s", kind, **payload))
    carry_out(broken, "acme", action_id)

    operations = _operations(ports, action_id)
    assert operations[-1] == last
    assert len(operations) == len(set(operations))
    assert _in_flight(ports) == 0


def test_a_signal_whose_store_is_away_is_refused_and_may_be_repeated(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports]
) -> None:
    away = faulty("lost", set(range(1, 1000)))
    with pytest.raises(OutageError):
        submit(away, _signal("s"))

    action_id = submit(ports, _signal("s"))

    carry_out(ports, "acme", action_id)
    assert _operations(ports, action_id) == ["action_complete"]
    assert ports.memory.used("acme", "demo-sku", _action(ports, action_id).month) == 1
    assert _in_flight(ports) == 0


def _killed_while_running(ports: Ports, action_id: str) -> None:
    child = _worker(ports, action_id)
    while _action(ports, action_id).state is not ActionState.RUNNING:
        time.sleep(0.005)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_an_action_whose_worker_was_killed_is_ended_and_undone(ports: Ports) -> None:
    action_id = submit(ports, _signal("s", "demo.sleep", seconds=0.4))
    _killed_while_running(ports, action_id)

    carry_out(ports, "acme", action_id)  # the redelivered message changes nothing
    assert _action(ports, action_id).state is ActionState.RUNNING
    reap.look(_later(ports, 1))
    assert _action(ports, action_id).state is ActionState.ROLLING_BACK
    take_over(_later(ports, 2), "acme", action_id)

    assert _operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert _in_flight(ports) == 0


def test_a_worker_that_dies_within_the_deadline_is_told_as_a_failure(ports: Ports) -> None:
    action_id = submit(ports, _signal("s", "demo.sleep", seconds=0.4))
    _killed_while_running(ports, action_id)

    reap.look(ports)

    failed = _receipts(ports, action_id)[0]
    assert (failed["operation"], failed["error_code"]) == ("action_failed", "WORKER_LOST")


def test_a_process_that_cannot_store_its_outcome_dies_and_the_reaper_ends_it(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports]
) -> None:
    action_id = submit(ports, _signal("s"))
    away = faulty("lost", set(range(2, 1000)))  # the claim lands, the end does not
    child = _worker(away, action_id)
    child.join()

    assert child.exitcode == -signal.SIGKILL
    reap.look(_later(ports, 1))
    take_over(_later(ports, 2), "acme", action_id)
    assert _operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def test_a_late_result_is_refused(ports: Ports) -> None:
    action_id = submit(ports, _signal("s", "demo.sleep", seconds=0.3))
    child = _worker(ports, action_id)
    while (running := _action(ports, action_id)).state is not ActionState.RUNNING:
        time.sleep(0.005)
    from governor.actions import timed_out
    from tasks.recover_action import recover

    recover(ports, running, timed_out(running), undo_here=False)  # somebody fences it
    child.join()

    assert _operations(ports, action_id) == ["action_timeout"]
    assert _action(ports, action_id).state is ActionState.ROLLING_BACK


def test_an_action_nobody_claimed_expires_unbegun(ports: Ports) -> None:
    action_id = submit(ports, _signal("s"))

    reap.look(_later(ports, 16))

    (proof,) = _receipts(ports, action_id)
    assert (proof["operation"], proof["phase"]) == ("action_timeout", "queued")
    assert _action(ports, action_id).state is ActionState.FAILED
    assert _in_flight(ports) == 0
    carry_out(ports, "acme", action_id)
    assert _operations(ports, action_id) == ["action_timeout"]


def test_a_message_that_was_lost_is_published_again(ports: Ports, valkey: Valkey) -> None:
    submit(ports, _signal("s"))
    broker = redis.Redis.from_url(valkey.broker_url)
    broker.flushdb()

    reap.look(_later(ports, 3))

    assert broker.llen("actions") == 1


def test_a_slot_that_came_to_nothing_is_given_back_with_its_quota(ports: Ports) -> None:
    from governor.quota import month_of
    from ports.memory import Request

    month = month_of(ports.clock.now())
    ports.memory.admit(Request("acme", "action-lost", "demo.succeed", None, "a", month, 1))
    while not ports.memory.overdue(1):
        time.sleep(0.005)

    reap.look(ports)

    assert _in_flight(ports) == 0
    assert ports.memory.used("acme", "demo-sku", month) == 0


def test_a_wiped_memory_is_rebuilt_before_anything_is_admitted(
    ports: Ports, valkey: Valkey
) -> None:
    done, waiting = submit(ports, _signal("done")), submit(ports, _signal("waits"))
    carry_out(ports, "acme", done)
    redis.Redis.from_url(valkey.url).flushdb()
    with pytest.raises(OutageError):
        submit(ports, _signal("refused"))

    degrade_to_safe_mode.rebuild_memory(ports)
    ports.memory.create_lease(33)

    month = _action(ports, waiting).month
    assert ports.memory.used("acme", "demo-sku", month) == 2
    assert _in_flight(ports) == 1
    reap.look(ports)  # a restored slot is looked at first, and kept: its action is pending
    assert _in_flight(ports) == 1
    assert submit(ports, _signal("waits")) == waiting
    carry_out(ports, "acme", waiting)
    assert _in_flight(ports) == 0


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        (Signal("stranger", "s", "demo.succeed", None, {}), InputError, "unknown-tenant"),
        (Signal("acme", "s", "demo.unknown", None, {}), DeniedError, "not-permitted"),
        (Signal("acme", "s", "demo.succeed", "other", {}), DeniedError, "not-permitted"),
        (Signal("acme", "s", "demo.succeed", None, {"n": 2**60 + 1}), InputError, "not-canonical"),
    ],
)
def test_refusals_name_their_cause_and_take_nothing(
    ports: Ports, asked: Signal, error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as refused:
        submit(ports, asked)

    assert refused.value.code == code  # type: ignore[attr-defined]
    assert _in_flight(ports) == 0


def test_the_limit_of_actions_at_once_is_kept_and_told(ports: Ports) -> None:
    for n in range(20):
        submit(ports, _signal(f"s{n}"))

    with pytest.raises(DeniedError) as refused:
        submit(ports, _signal("s20"))

    assert (refused.value.code, refused.value.retry_after_s) == ("concurrency-exceeded", 1)
    ports.memory.release(Slot("acme", "demo-sku", records.action_id("acme", "s0")))
    submit(ports, _signal("s20"))


def test_a_health_check_reads_what_it_wrote(ports: Ports) -> None:
    for _ in range(3):
        degrade_to_safe_mode.probe(ports)


def test_a_duplicate_is_never_refused_whatever_is_used_up(ports: Ports, valkey: Valkey) -> None:
    done = submit(ports, _signal("done"))
    carry_out(ports, "acme", done)
    for n in range(20):
        submit(ports, _signal(f"s{n}"))
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{done}")

    assert submit(ports, _signal("done")) == done


def test_a_duplicate_after_a_rebuild_leaves_the_slot_of_its_action_alone(
    ports: Ports, valkey: Valkey
) -> None:
    waiting = submit(ports, _signal("waits"))
    redis.Redis.from_url(valkey.url).flushdb()
    degrade_to_safe_mode.rebuild_memory(ports)
    ports.memory.create_lease(33)

    assert submit(ports, _signal("waits")) == waiting
    assert _in_flight(ports) == 1


def test_one_unusable_policy_keeps_nobody_else_from_being_booted(
    ports: Ports, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.errors import PolicyError
    from tasks import boot

    subscribe(ports, event(event_id="e-2", account_id="other"))
    redis.Redis.from_url(valkey.url).flushdb()
    usable = boot._terms

    def terms(ports: Ports, entitlement: records.Entitlement) -> object:
        if entitlement.account_id == "acme":
            raise PolicyError("policy-unusable", "its handler is gone")
        return usable(ports, entitlement)

    with monkeypatch.context() as broken:
        broken.setattr(boot, "_terms", terms)
        degrade_to_safe_mode.rebuild_memory(ports)
        degrade_to_safe_mode.rebuild_memory(ports)
    ports.memory.create_lease(33)

    assert submit(ports, Signal("other", "s", "demo.succeed", None, {}))
    causes = [
        SignedReceipt.model_validate(d.data).fields().get("cause")
        for d in ports.documents.scan("tenants/acme/receipts")
    ]
    assert causes.count("policy_unusable") == 1


def test_a_process_that_cannot_tell_whether_it_claimed_dies(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports]
) -> None:
    action_id = submit(ports, _signal("s"))
    child = _worker(faulty("lost", set(range(1, 1000))), action_id)
    child.join()

    assert child.exitcode == -signal.SIGKILL
    carry_out(ports, "acme", action_id)
    assert _operations(ports, action_id) == ["action_complete"]


def test_a_claim_past_its_hard_limit_is_killed_and_then_undone(ports: Ports) -> None:
    action_id = submit(ports, _signal("s", "demo.swallow"))
    child = _worker(ports, action_id)
    while _action(ports, action_id).state is not ActionState.RUNNING:
        time.sleep(0.005)
    while True:  # the claim moves the slot's deadline a moment after it is stored
        ports.memory.keep(Slot("acme", "demo-sku", action_id), -1)
        reap.look(_later(ports, 10))
        if not child.is_alive():
            break
        time.sleep(0.02)
    child.join()

    assert child.exitcode == -signal.SIGKILL
    reap.look(_later(ports, 10))
    take_over(_later(ports, 11), "acme", action_id)
    assert _operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def test_one_signal_delivered_by_many_at_once_is_counted_and_holds_its_slot_once(
    ports: Ports,
) -> None:
    subscribe(ports, event(event_id="e-big", plan_type="enterprise"))
    barrier = threading.Barrier(4)

    def deliver(n: int) -> None:
        for i in range(40):
            barrier.wait()
            submit(ports, _signal(f"storm-{i}"))

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    month = _action(ports, records.action_id("acme", "storm-0")).month
    assert ports.memory.used("acme", "demo-sku", month) == 40
    assert _in_flight(ports) == 40


def test_a_retry_that_is_landing_keeps_its_slot_from_the_reaper(
    ports: Ports, valkey: Valkey
) -> None:
    from governor.quota import month_of
    from ports.memory import Request

    asked = _signal("slow")
    month = month_of(ports.clock.now())
    action_id = records.action_id("acme", "slow")
    request = Request("acme", action_id, "demo.succeed", None, asked.sha256(), month, 1)
    ports.memory.admit(request)
    while not ports.memory.overdue(1):
        time.sleep(0.005)

    ports.memory.admit(dataclasses.replace(request, queue_timeout_ms=15_000))  # the retry asks
    reap.look(ports)
    assert _in_flight(ports) == 1
    assert submit(ports, asked) == action_id
    assert ports.memory.used("acme", "demo-sku", month) == 1


def test_a_new_entitlement_memory_was_not_told_of_is_found_by_its_first_signal(
    ports: Ports,
) -> None:
    from ports.memory import Terms

    ports.memory.boot("acme", "stable", [Terms("old", "starter", "1.0.0", 1, 1, ["other"])])

    assert submit(ports, _signal("s"))
