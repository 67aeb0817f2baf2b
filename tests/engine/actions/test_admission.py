"""Admission: durable before anybody is told, exact in its limits, rebuilt after a loss."""

import dataclasses
import json
import threading
import time
from collections.abc import Callable

import pytest
import redis

from governor import paths, tenancy
from governor.actions import STORED_MS
from governor.errors import ConflictError, DeniedError, InputError, OutageError
from governor.quota import month_ends_in_s, month_of
from ledger.receipt import SignedReceipt
from ports import Ports, Times
from ports.documents import Query, Write
from ports.slots import Request, Slot
from tasks import ticks
from tasks.actions import reap
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.governors import policies
from tasks.health import check, rebuild
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.actions import action_of, counted, in_flight, later, operations, signal_of
from tests.support.faults import Fault, WatchedDocuments, Writes
from tests.support.health import keep_lease
from tests.support.runs import subscribe
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def test_the_same_signal_again_is_the_same_action_and_costs_nothing(ports: Ports) -> None:
    first = submit(ports, signal_of("s"))
    execute(ports, "acme", first)

    assert submit(ports, signal_of("s")) == first
    execute(ports, "acme", first)
    assert operations(ports, first) == ["action_complete"]
    assert ports.memory.used("acme", "demo-sku", action_of(ports, first).month) == 1
    with pytest.raises(ConflictError):
        submit(ports, signal_of("s", more=1))


def test_a_duplicate_memory_forgot_is_found_in_documents_and_refunded(
    ports: Ports, valkey: Valkey
) -> None:
    action_id = submit(ports, signal_of("s"))
    execute(ports, "acme", action_id)
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{action_id}")
    after = later(ports, 10)

    assert submit(after, signal_of("s")) == action_id
    assert in_flight(ports) == 0
    assert ports.memory.used("acme", "demo-sku", action_of(ports, action_id).month) == 1
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{action_id}")
    with pytest.raises(ConflictError):
        submit(after, signal_of("s", more=1))
    assert in_flight(ports) == 0


def test_a_signal_whose_store_is_away_is_refused_and_may_be_repeated(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports]
) -> None:
    away = faulty("lost", set(range(1, 1000)))
    with pytest.raises(OutageError):
        submit(away, signal_of("s"))

    action_id = submit(ports, signal_of("s"))

    execute(ports, "acme", action_id)
    assert operations(ports, action_id) == ["action_complete"]
    assert ports.memory.used("acme", "demo-sku", action_of(ports, action_id).month) == 1
    assert in_flight(ports) == 0


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
    assert in_flight(ports) == 0


def test_the_limit_of_actions_at_once_is_kept_and_told(ports: Ports) -> None:
    for n in range(20):
        submit(ports, signal_of(f"s{n}"))

    with pytest.raises(DeniedError) as refused:
        submit(ports, signal_of("s20"))

    assert (refused.value.code, refused.value.retry_after_s) == ("concurrency-exceeded", 1)
    ports.memory.release(Slot("acme", "demo-sku", paths.action_id("acme", "s0")))
    submit(ports, signal_of("s20"))


def test_a_health_check_reads_what_it_wrote(ports: Ports) -> None:
    for _ in range(3):
        check.probe(ports, "health/probe", 1)


def test_a_duplicate_is_never_refused_whatever_is_used_up(ports: Ports, valkey: Valkey) -> None:
    done = submit(ports, signal_of("done"))
    execute(ports, "acme", done)
    for n in range(20):
        submit(ports, signal_of(f"s{n}"))
    redis.Redis.from_url(valkey.url).delete(f"ggen:seen:{done}")

    assert submit(ports, signal_of("done")) == done


def test_a_duplicate_after_a_rebuild_leaves_the_slot_of_its_action_alone(
    ports: Ports, valkey: Valkey
) -> None:
    waiting = submit(ports, signal_of("waits"))
    redis.Redis.from_url(valkey.url).flushdb()
    rebuild.rebuild(ports, 33)

    assert submit(ports, signal_of("waits")) == waiting
    assert in_flight(ports) == 1


def test_what_is_stored_after_a_rebuild_is_counted_all_the_same(
    ports: Ports, valkey: Valkey
) -> None:
    def lose_memory() -> None:
        redis.Redis.from_url(valkey.url).flushdb()
        rebuild.rebuild(ports, 33)
        time.sleep(STORED_MS / 1000)

    documents = WatchedDocuments(ports.documents, Writes(1, "lost", lose_memory))
    slow = dataclasses.replace(ports, documents=documents)  # type: ignore[arg-type]

    action_id = submit(slow, signal_of("slow"))

    assert in_flight(ports) == 1
    assert ports.memory.used("acme", "demo-sku", action_of(ports, action_id).month) == 1


class LandsAfterALoss:
    """Documents that a commit reaches after Memory was lost and rebuilt; then ``fails``."""

    def __init__(self, ports: Ports, valkey: Valkey, fails: BaseException) -> None:
        self._ports, self._valkey, self._fails = ports, valkey, fails
        self._is_away = False

    def commit(self, writes: list[Write]) -> list[str]:
        if not self._is_away:
            redis.Redis.from_url(self._valkey.url).flushdb()
            rebuild.rebuild(self._ports, 33)
            time.sleep(STORED_MS / 1000)
            self._ports.documents.commit(writes)
        self._is_away = True
        raise self._fails

    def __getattr__(self, name: str) -> object:
        if self._is_away:
            raise self._fails
        return getattr(self._ports.documents, name)


def _landed_after_a_loss(ports: Ports, valkey: Valkey, fails: BaseException) -> None:
    documents = LandsAfterALoss(ports, valkey, fails)
    with pytest.raises(type(fails)):
        submit(dataclasses.replace(ports, documents=documents), signal_of("slow"))  # type: ignore[arg-type]


def test_what_landed_after_a_rebuild_and_was_told_as_failed_is_counted_once(
    ports: Ports, valkey: Valkey
) -> None:
    _landed_after_a_loss(ports, valkey, OutageError("injected", "the store is away"))
    assert counted(ports) == (1, 1)

    assert submit(ports, signal_of("slow")) == submit(ports, signal_of("slow"))

    assert counted(ports) == (1, 1)


def test_what_landed_after_a_rebuild_and_whose_ingress_died_is_counted_by_the_reaper(
    ports: Ports, valkey: Valkey
) -> None:
    _landed_after_a_loss(ports, valkey, SystemExit())
    assert counted(ports) == (0, 0)

    for _ in range(2):
        reap.look_at_all(ports)

    assert counted(ports) == (1, 1)


def test_a_sweep_between_a_loss_and_the_rebuild_counts_nothing_twice(
    ports: Ports, valkey: Valkey
) -> None:
    for number in range(3):
        submit(ports, signal_of(f"s-{number}"))
    redis.Redis.from_url(valkey.url).flushdb()

    reap.look_at_all(ports)
    rebuild.rebuild(ports, 33)
    reap.look_at_all(ports)

    assert counted(ports) == (3, 3)


def test_a_lease_that_is_missing_is_looked_after_more_often_than_one_that_is_held(
    ports: Ports, valkey: Valkey
) -> None:
    times = Times(health_interval_s=60, probe_interval_s=0.1, lease_s=200)
    ports = dataclasses.replace(ports, times=times)
    memory = redis.Redis.from_url(valkey.url)
    action_id = submit(ports, signal_of("s"))
    month = action_of(ports, action_id).month
    keep_lease(ports)
    memory.flushdb()

    keep_lease(ports)

    assert ports.memory.lease_left_s() > 190
    assert ports.memory.used("acme", "demo-sku", month) == 1
    memory.delete("ggen:lease")
    until(lambda: keep_lease(ports) or ports.memory.lease_left_s())
    keep_lease(ports)
    memory.expire("ggen:lease", 5)
    keep_lease(ports)  # too soon after the other
    assert 0 < ports.memory.lease_left_s() <= 5


def test_one_unusable_policy_keeps_nobody_else_from_being_booted(
    ports: Ports, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.errors import PolicyError
    from tasks.governors import boot

    subscribe(ports, event(event_id="e-2", account_id="other"))
    redis.Redis.from_url(valkey.url).flushdb()
    usable = boot._terms

    def terms(ports: Ports, entitlement: tenancy.Entitlement) -> object:
        if entitlement.account_id == "acme":
            raise PolicyError("policy-unusable", "its handler is gone")
        return usable(ports, entitlement)

    with monkeypatch.context() as broken:
        broken.setattr(boot, "_terms", terms)
        rebuild.rebuild(ports, 33)
        rebuild.rebuild(ports, 33)

    assert submit(ports, Signal("other", "s", "demo.succeed", None, {}))
    causes = [
        SignedReceipt.model_validate(d.data).fields().get("cause")
        for d in ports.documents.scan(Query("tenants/_system/receipts"))
    ]
    assert causes.count("policy-unusable") == 1


def test_one_signal_delivered_by_many_at_once_is_counted_and_holds_its_slot_once(
    ports: Ports,
) -> None:
    subscribe(ports, event(event_id="e-big", plan_type="enterprise"))
    barrier = threading.Barrier(4)

    def deliver(n: int) -> None:
        for i in range(40):
            barrier.wait()
            submit(ports, signal_of(f"storm-{i}"))

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    month = action_of(ports, paths.action_id("acme", "storm-0")).month
    assert ports.memory.used("acme", "demo-sku", month) == 40
    assert in_flight(ports) == 40


def test_a_retry_that_is_landing_keeps_its_slot_from_the_reaper(
    ports: Ports, valkey: Valkey
) -> None:
    asked = signal_of("slow")
    month = month_of(ports.clock.now())
    action_id = paths.action_id("acme", "slow")
    request = Request("acme", action_id, "demo.succeed", None, None, asked.sha256(), month, 1)
    ports.memory.admit([request])
    until(lambda: ports.memory.due(1), every_s=0.005)

    ports.memory.admit([dataclasses.replace(request, look_in_ms=15_000)])  # the retry asks
    ticks.look(ports)
    assert in_flight(ports) == 1
    assert submit(ports, asked) == action_id
    assert ports.memory.used("acme", "demo-sku", month) == 1


def test_a_new_entitlement_memory_was_not_told_of_is_found_by_its_first_signal(
    ports: Ports,
) -> None:
    from ports.memory import Terms

    ports.memory.boot(
        "acme",
        ports.memory.begin_boot(),
        "stable",
        [Terms("old", "old", "starter", "1.0.0", 1, 1, ["other"])],
    )

    assert submit(ports, signal_of("s"))


def test_a_month_ends_at_midnight_utc_and_the_next_one_is_whole(
    ports: Ports, valkey: Valkey
) -> None:
    policy = {
        "sku_id": "month-sku",
        "plan_type": "starter",
        "policy_version": "1.0.0",
        "quota": {"monthly_actions": 1},
        "actions": {"go": {"handler": "demo.succeed"}},
        "signals": {"go": "go"},
        "permissions": ["go"],
    }
    policies.register(ports, json.dumps(policy).encode())
    subscribe(ports, event(event_id="e-month", sku_id="month-sku"))
    left_s = month_ends_in_s(ports.clock.now())
    before, after = later(ports, left_s - 5), later(ports, left_s + 5)

    submit(before, Signal("acme", "last", "go", None, {}))
    with pytest.raises(DeniedError) as refused:
        submit(before, Signal("acme", "one too many", "go", None, {}))
    assert refused.value.code == "quota-exceeded"
    assert 1 <= (refused.value.retry_after_s or 0) <= 6
    first = submit(after, Signal("acme", "first", "go", None, {}))
    with pytest.raises(DeniedError):
        submit(after, Signal("acme", "second", "go", None, {}))

    redis.Redis.from_url(valkey.url).flushdb()
    rebuild.rebuild(after, 33)  # counts the month it is, and that one alone
    month = action_of(ports, first).month
    assert ports.memory.used("acme", "month-sku", month) == 1
    assert ports.memory.used("acme", "month-sku", month_of(before.clock.now())) == 0
