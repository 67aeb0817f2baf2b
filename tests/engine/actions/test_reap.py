"""The reaper: what its own process cannot end any more is ended, undone, never lost sight of."""

import dataclasses
import os
import signal
import subprocess
from pathlib import Path

import pytest
import redis

from adapters.local.system import started_s
from governor.errors import OutageError
from governor.fsm import ActionState
from governor.records import ProcessClaim
from ports import Ports
from ports.slots import Slot
from tasks import ticks
from tasks.actions import dispatch, reap, transitions
from tasks.actions.admit import submit
from tasks.actions.execute import execute, expire
from tasks.actions.recover import roll_back
from tasks.health import rebuild
from tests.conftest import Valkey
from tests.engine.conftest import event, on_both
from tests.support.actions import (
    action_of,
    in_flight,
    killed_while_running,
    later,
    look,
    offer,
    operations,
    receipts,
    signal_of,
    worker,
)
from tests.support.runs import subscribe
from tests.support.stores import Stores
from tests.support.waiting import until

pytestmark = on_both
LIMIT_MS = 3_600
"""The hard limit of the sample policies' actions: 500 ms, 100 ms to undo, 3 s."""

UNTOLD = (lambda *_: None, lambda *_: None)


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def test_an_action_whose_worker_was_killed_is_ended_and_undone(
    ports: Ports, stores: Stores
) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=0.4))
    killed_while_running(ports, stores, action_id)

    execute(ports, "acme", action_id)  # the redelivered message changes nothing
    assert action_of(ports, action_id).state is ActionState.RUNNING
    ticks.look(later(ports, 1))
    assert action_of(ports, action_id).state is ActionState.ROLLING_BACK
    roll_back(later(ports, 2), "acme", action_id)

    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
    assert in_flight(ports) == 0


def test_a_worker_that_dies_within_the_deadline_is_told_as_a_failure(
    ports: Ports, stores: Stores
) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=0.4))
    killed_while_running(ports, stores, action_id)

    ticks.look(ports)

    failed = receipts(ports, action_id)[0]
    assert (failed["operation"], failed["error_code"]) == ("action_failed", "WORKER_LOST")


def test_a_late_result_is_refused(ports: Ports, stores: Stores) -> None:
    action_id = submit(ports, signal_of("s", "demo.sleep", seconds=0.3))
    child = worker(stores, action_id)
    until(lambda: action_of(ports, action_id).state is ActionState.RUNNING, every_s=0.005)
    running = transitions.load(ports, "acme", action_id)
    assert running
    from governor.actions import timed_out
    from tasks.actions.recover import recover

    fenced = timed_out(running.action)
    recover(ports, running, fenced, run_ms=500, undo_here=False)  # somebody else
    child.join()

    assert operations(ports, action_id) == ["action_timeout"]
    assert action_of(ports, action_id).state is ActionState.ROLLING_BACK


def test_an_action_nobody_claimed_expires_unbegun(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))

    look(later(ports, 16), action_id)

    (proof,) = receipts(ports, action_id)
    assert (proof["operation"], proof["phase"]) == ("action_timeout", "queued")
    assert action_of(ports, action_id).state is ActionState.FAILED
    assert in_flight(ports) == 0
    execute(ports, "acme", action_id)
    assert operations(ports, action_id) == ["action_timeout"]


def _waiting(ports: Ports) -> int:
    depth, _ = ports.dispatch.queues(10)
    return depth


def _take(ports: Ports, claim: ProcessClaim | None = None) -> Slot | None:
    """What a process takes from the lists, and then dies."""
    claim = claim or ports.processes.claim(ports.clock.now())
    return ports.dispatch.take(LIMIT_MS, "a server", claim).slot


def test_what_a_process_took_that_died_waits_again(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    assert _take(ports) == Slot("acme", "demo-sku", action_id)
    assert _waiting(ports) == 0

    for _ in range(3):
        look(later(ports, 3), action_id)

    assert _waiting(ports) == 1
    assert _serve(ports) == 1
    assert operations(ports, action_id) == ["action_complete"]


def test_a_call_that_was_lost_is_made_again(ports: Ports, valkey: Valkey) -> None:
    action_id = submit(ports, signal_of("s"))
    broker = redis.Redis.from_url(valkey.broker_url)
    assert broker.llen("actions") == 1
    broker.flushdb()

    until(lambda: ticks.look(ports) or broker.llen("actions"), 3)

    assert broker.llen("actions") == 1
    assert _serve(ports) == 1
    assert _serve(ports) == 0  # one that was called twice
    assert operations(ports, action_id) == ["action_complete"]


def test_a_slot_that_came_to_nothing_is_given_back_with_its_quota(
    ports: Ports, valkey: Valkey
) -> None:
    from governor.quota import month_of
    from ports.slots import Request

    month = month_of(ports.clock.now())
    ports.memory.admit([Request("acme", "action-lost", "demo.succeed", None, None, "a", month, 1)])
    slot = Slot("acme", "demo-sku", "action-lost")
    until(lambda: ports.memory.due(1), every_s=0.005)

    ticks.look(ports)
    assert in_flight(ports) == 1  # it may be landing just now
    redis.Redis.from_url(valkey.url).hset("ggen:seen:action-lost", "at", 0)
    ports.memory.look_again(slot, -1)
    ticks.look(ports)

    assert in_flight(ports) == 0
    assert ports.memory.used("acme", "demo-sku", month) == 0


def test_a_process_that_cannot_tell_whether_it_claimed_dies(ports: Ports, stores: Stores) -> None:
    action_id = submit(ports, signal_of("s"))
    child = worker(stores, action_id, lost=range(1, 1000))
    child.join()

    assert child.exitcode == -signal.SIGKILL
    execute(ports, "acme", action_id)
    assert operations(ports, action_id) == ["action_complete"]


def test_a_claim_past_its_hard_limit_is_killed_and_then_undone(
    ports: Ports, stores: Stores
) -> None:
    action_id = submit(ports, signal_of("s", "demo.swallow"))
    child = worker(stores, action_id)
    until(lambda: action_of(ports, action_id).state is ActionState.RUNNING, every_s=0.005)
    look(later(ports, 10), action_id)
    child.join()

    assert child.exitcode == -signal.SIGKILL
    ticks.look(later(ports, 10))
    roll_back(later(ports, 11), "acme", action_id)
    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def test_an_undo_that_hangs_is_killed_and_tried_again(ports: Ports, stores: Stores) -> None:
    offer(ports, "test.stuck_undo")
    action_id = submit(ports, signal_of("stuck", "test.stuck_undo"))
    child = worker(stores, action_id)
    until(Path(os.environ["GGEN_STATE_DIR"], action_id).exists)  # its rollback has begun

    look(later(ports, 10), action_id, sku_id="test-sku")
    child.join()

    assert child.exitcode == -signal.SIGKILL
    roll_back(later(ports, 12), "acme", action_id)
    assert operations(ports, action_id) == ["action_failed", "action_rolled_back"]
    assert in_flight(ports) == 0


def test_a_claim_of_another_host_is_fenced_once_its_hard_limit_is_over(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    _taken_elsewhere(ports, action_id)

    look(later(ports, 1), action_id)
    assert action_of(ports, action_id).state is ActionState.RUNNING  # who knows
    look(later(ports, 10), action_id)
    assert action_of(ports, action_id).state is ActionState.ROLLING_BACK
    roll_back(later(ports, 11), "acme", action_id)

    assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]


def _taken_elsewhere(ports: Ports, action_id: str) -> None:
    held = transitions.load(ports, "acme", action_id)
    assert held
    there = ports.processes.claim(ports.clock.now()).evolve(host="elsewhere")
    transitions.commit(ports, held, held.action.evolve(state=ActionState.RUNNING, claim=there))


def test_a_long_queue_is_not_made_longer(ports: Ports) -> None:
    waiting = submit(ports, signal_of("waits"))

    for seconds in (3, 7):
        look(later(ports, seconds), waiting)

    assert _waiting(ports) == 1


def test_what_memory_forgot_is_found_in_the_store_and_counted(ports: Ports, valkey: Valkey) -> None:
    waiting, running = submit(ports, signal_of("waits")), submit(ports, signal_of("runs"))
    _taken_elsewhere(ports, running)
    redis.Redis.from_url(valkey.url).delete("ggen:looks", "ggen:claims")
    after = later(ports, 30)
    ticks.look(after)
    assert action_of(ports, waiting).state is ActionState.PENDING  # nobody knows of it

    assert reap.look_at_all(ports) == 0  # they are young: nothing to complain of
    assert reap.look_at_all(after) == 1  # the other one is watched again since

    assert operations(ports, waiting) == ["action_timeout"]
    assert operations(ports, running) == ["action_timeout"]
    roll_back(after, "acme", running)
    assert reap.look_at_all(after) == 0
    assert in_flight(ports) == 0


def test_a_retry_of_a_rollback_that_memory_forgot_is_handed_out_again(
    ports: Ports, valkey: Valkey
) -> None:
    action_id = submit(ports, signal_of("forgotten retry", "demo.rollback_fails", times=1))
    execute(ports, "acme", action_id)
    redis.Redis.from_url(valkey.url).flushdb()
    rebuild.rebuild(ports, 33)
    assert in_flight(ports) == 0  # it holds no place, and is looked at all the same
    broker = redis.Redis.from_url(valkey.broker_url)
    broker.flushdb()

    ticks.look(later(ports, 2))

    assert broker.llen("actions") == 1


def test_a_clock_that_is_set_makes_nobody_look_dead(ports: Ports) -> None:
    child = subprocess.Popen(["sleep", "600"])
    claim = ports.processes.claim(ports.clock.now()).evolve(
        pid=child.pid, process_started=started_s(child.pid)
    )
    assert abs(started_s(child.pid) - ports.clock.monotonic_s()) < 3600  # of the boot, not a date
    assert not ports.processes.is_gone(claim)
    assert ports.processes.is_gone(claim.evolve(boot_id="another"))
    ports.processes.kill(claim)
    child.wait()
    assert ports.processes.is_gone(claim)


def test_what_a_dead_process_had_begun_and_not_claimed_waits_again_at_once(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    gone = ports.processes.claim(ports.clock.now()).evolve(process_started=1.0)
    assert _take(ports, gone)

    ticks.look(ports)

    assert _take(ports) == Slot("acme", "demo-sku", action_id)


def test_what_waited_when_memory_was_lost_waits_again_at_once(ports: Ports, valkey: Valkey) -> None:
    waiting = submit(ports, signal_of("waiting"))
    redis.Redis.from_url(valkey.url).flushdb()
    rebuild.rebuild(ports, 33)
    assert _waiting(ports) == 0

    ticks.look(ports)
    ticks.look(ports)

    assert _waiting(ports) == 1
    assert action_of(ports, waiting).state is ActionState.PENDING
    assert _serve(ports) == 1


def test_what_was_cancelled_in_the_list_is_passed_over(ports: Ports) -> None:
    ids = [submit(ports, signal_of(f"s-{number}")) for number in range(2)]
    held = transitions.load(ports, "acme", ids[0])
    assert held
    assert expire(ports, held, code="DRAINED", why="its entitlement was cancelled")

    assert _serve(ports) == 2

    assert operations(ports, ids[0]) == ["action_timeout"]
    assert operations(ports, ids[1]) == ["action_complete"]
    assert in_flight(ports) == 0


def test_a_process_that_dies_at_work_leaves_the_rest_to_others(
    ports: Ports, stores: Stores
) -> None:
    stuck = submit(ports, signal_of("stuck", "demo.swallow"))
    rest = [submit(ports, signal_of(f"s-{number}")) for number in range(3)]
    child = stores.process(_serve)
    until(lambda: action_of(ports, stuck).state is ActionState.RUNNING, every_s=0.005)
    child.kill()
    child.join()

    assert _serve(ports) == 3
    for action_id in rest:
        assert operations(ports, action_id) == ["action_complete"]
    ticks.look(later(ports, 10))
    assert operations(ports, stuck)[0] == "action_timeout"


def _serve(ports: Ports) -> int:
    """What a process does that was called just now."""
    for limit_ms, call in ports.dispatch.unserved():
        assert (limit_ms, call.count) == (LIMIT_MS, 1)
    newest = ports.dispatch.leave(LIMIT_MS, "nobody", None).round
    return dispatch.serve(ports, LIMIT_MS, newest, *UNTOLD)


def test_an_outage_while_it_is_read_leaves_an_action_to_the_next_look(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    blind = dataclasses.replace(ports, documents=_Blind(ports.documents))
    with pytest.raises(OutageError):
        _serve(blind)
    assert _waiting(ports) == 0

    look(later(ports, 3), action_id)

    assert _serve(ports) == 1
    assert operations(ports, action_id) == ["action_complete"]


class _Blind:
    """Documents that cannot be read."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def get(self, _path: str) -> object:
        raise OutageError("injected", "the store did not answer")

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)
