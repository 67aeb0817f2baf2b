"""What every Memory adapter must do."""

import asyncio
import dataclasses
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.valkey.memory import ValkeyMemory, ValkeyNotices
from governor.errors import OutageError
from governor.health import Drill, Fault, Outage, Scope
from governor.quota import Verdict, decide
from governor.records import ProcessClaim
from governor.times import timestamp
from ports.alerts import Alert, Letter
from ports.health import Health, Owed
from ports.memory import Memory, Terms
from ports.slots import Request, Slot
from tests.conftest import Valkey
from tests.support.leases import lease
from tests.support.waiting import until

A1 = Slot("acme", "crm", "a1")
AT = datetime(2026, 11, 24, 12, 0, 0, 1, tzinfo=UTC)
OWN = ProcessClaim(host="here", pid=1, process_started=1.5, claimed_at=timestamp(AT))


@pytest.fixture(params=["valkey"])
def memory(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Memory]:
    redis.Redis.from_url(valkey.url).flushdb()
    opened = ValkeyMemory(valkey.url)
    yield opened
    opened.close()


def _terms(
    entitlement_id: str = "crm", concurrent: int = 2, monthly: int = 10, *, sku_id: str = ""
) -> Terms:
    sku_id = sku_id or entitlement_id
    return Terms(entitlement_id, sku_id, "starter", "1.0.0", concurrent, monthly, ["seats.changed"])


def _ask(memory: Memory, action_id: str, **changes: object) -> Verdict:
    request = {
        "account_id": "acme",
        "action_id": action_id,
        "signal_type": "seats.changed",
        "entitlement_id": None,
        "sku_id": None,
        "signal_sha256": "a" * 64,
        "month": "2026-11",
        "look_in_ms": 15_000,
    }
    (admission,) = memory.admit([Request(**{**request, **changes})])  # type: ignore[arg-type]
    return admission.verdict


def _open(memory: Memory, *terms: Terms) -> None:
    memory.boot("acme", memory.begin_boot(), "stable", terms or [_terms()])
    lease(memory)


def test_nothing_is_admitted_without_a_lease(memory: Memory) -> None:
    memory.boot("acme", memory.begin_boot(), "stable", [_terms()])

    assert memory.extend_lease(33) is False  # a check may lengthen a lease, never make one
    assert _ask(memory, "a1") is Verdict.NO_LEASE
    lease(memory)
    assert memory.extend_lease(33) is True
    assert 30 < memory.lease_left_s() <= 33
    assert _ask(memory, "a1") is Verdict.ADMITTED


def test_it_is_known_when_memory_answered_last(memory: Memory) -> None:
    assert memory.answered_s() == 0
    before = time.monotonic()
    memory.lease_left_s()
    assert before <= memory.answered_s() <= time.monotonic()


def test_a_lease_runs_out_by_itself(memory: Memory) -> None:
    _open(memory)
    lease(memory, 1)
    until(lambda: not memory.lease_left_s(), every_s=0.005)

    assert _ask(memory, "a1") is Verdict.NO_LEASE


def test_signals_are_admitted_together_in_order_each_on_its_own(
    memory: Memory, valkey: Valkey
) -> None:
    _open(memory)
    redis.Redis.from_url(valkey.url).script_flush()  # a new server knows no script
    asked = [
        Request("acme", f"a{n}", kind, None, None, "a" * 64, "2026-11", 15_000)
        for n, kind in ((1, "seats.changed"), (2, "no.such"), (1, "seats.changed"))
    ]

    verdicts = [each.verdict for each in memory.admit(asked)]

    assert verdicts == [Verdict.ADMITTED, Verdict.NOT_PERMITTED, Verdict.DUPLICATE]
    assert memory.in_flight("acme", ["crm"]) == 1


def test_the_admitted_signal_is_told_its_entitlement(memory: Memory) -> None:
    _open(memory)
    request = Request("acme", "a1", "seats.changed", None, None, "a" * 64, "2026-11", 15_000)

    (admission,) = memory.admit([request])

    assert (admission.sku_id, admission.plan_type, admission.policy_version) == (
        "crm",
        "starter",
        "1.0.0",
    )
    (again,) = memory.admit([request])
    assert again.verdict is Verdict.DUPLICATE
    assert again.sku_id == "crm"


def test_a_duplicate_costs_nothing_and_another_content_is_a_conflict(memory: Memory) -> None:
    _open(memory)
    _ask(memory, "a1")

    assert _ask(memory, "a1") is Verdict.DUPLICATE
    assert _ask(memory, "a1", signal_sha256="b" * 64) is Verdict.CONFLICT
    assert memory.used("acme", "crm", "2026-11") == 1
    assert memory.in_flight("acme", ["crm"]) == 1


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"account_id": "stranger"}, Verdict.UNKNOWN_TENANT),
        ({"signal_type": "other"}, Verdict.NOT_PERMITTED),
        ({"sku_id": "other"}, Verdict.NOT_PERMITTED),
    ],
)
def test_refusals_take_nothing(memory: Memory, changes: dict[str, str], verdict: Verdict) -> None:
    _open(memory)

    assert _ask(memory, "a1", **changes) is verdict
    assert memory.in_flight("acme", ["crm"]) == 0
    assert memory.used("acme", "crm", "2026-11") == 0
    assert _ask(memory, "a1") is Verdict.ADMITTED


def test_a_type_of_two_entitlements_needs_the_sku_named(memory: Memory) -> None:
    _open(memory, _terms("crm"), _terms("erp"))

    assert _ask(memory, "a1") is Verdict.AMBIGUOUS
    assert _ask(memory, "a1", sku_id="erp") is Verdict.ADMITTED
    assert memory.in_flight("acme", ["erp"]) == 1
    assert memory.in_flight("acme", ["crm"]) == 0


def test_two_entitlements_of_one_sku_have_limits_and_use_of_their_own(memory: Memory) -> None:
    small = _terms("e-1", concurrent=1, sku_id="crm")
    _open(memory, small, _terms("e-2", concurrent=2, monthly=2, sku_id="crm"), _terms("erp"))

    assert _ask(memory, "a1") is Verdict.AMBIGUOUS
    assert _ask(memory, "a1", sku_id="crm") is Verdict.AMBIGUOUS
    assert _ask(memory, "a1", sku_id="erp", entitlement_id="e-1") is Verdict.NOT_PERMITTED
    assert _ask(memory, "a1", entitlement_id="e-1") is Verdict.ADMITTED
    assert _ask(memory, "a2", entitlement_id="e-1") is Verdict.CONCURRENCY
    assert _ask(memory, "a2", entitlement_id="e-2", sku_id="crm") is Verdict.ADMITTED
    assert _ask(memory, "a3", entitlement_id="e-2") is Verdict.ADMITTED
    memory.release(Slot("acme", "e-2", "a2"))
    assert _ask(memory, "a4", entitlement_id="e-2") is Verdict.QUOTA
    assert [memory.used("acme", each, "2026-11") for each in ("e-1", "e-2", "crm")] == [1, 2, 0]


def test_what_release_0_1_0_booted_is_an_entitlement_whose_id_is_its_sku(
    memory: Memory, valkey: Valkey
) -> None:
    _open(memory)
    redis.Redis.from_url(valkey.url).hdel("ggen:governor:acme", "crm:sku")
    request = Request("acme", "a1", "seats.changed", None, "crm", "a" * 64, "2026-11", 15_000)

    (admission,) = memory.admit([request])

    assert (admission.entitlement_id, admission.sku_id) == ("crm", "crm")


def test_a_draining_governor_and_a_degraded_system_refuse(memory: Memory, valkey: Valkey) -> None:
    _open(memory)
    memory.boot("acme", memory.begin_boot(), "draining", [_terms()])
    assert _ask(memory, "a1") is Verdict.DRAINING

    _open(memory)
    redis.Redis.from_url(valkey.url).set("ggen:mode", "degraded")
    assert _ask(memory, "a1") is Verdict.DEGRADED


def test_a_released_slot_is_free_and_its_quota_stays_spent(memory: Memory) -> None:
    _open(memory, _terms(concurrent=1))
    _ask(memory, "a1")
    assert _ask(memory, "a2") is Verdict.CONCURRENCY

    memory.release(Slot("acme", "crm", "a1"))

    assert _ask(memory, "a2") is Verdict.ADMITTED
    assert memory.used("acme", "crm", "2026-11") == 2


def test_a_signal_is_remembered_for_less_long_once_its_action_has_ended(
    memory: Memory, valkey: Valkey
) -> None:
    _open(memory)
    _ask(memory, "a1")
    inspected = redis.Redis.from_url(valkey.url)
    under_way_s = inspected.ttl("ggen:seen:a1")

    memory.release(A1)

    assert inspected.ttl("ggen:seen:a1") <= 900 < under_way_s
    assert _ask(memory, "a1") is Verdict.DUPLICATE


def test_a_refunded_slot_is_as_if_never_asked_for_and_refunded_once(memory: Memory) -> None:
    _open(memory)
    _ask(memory, "a1")
    for _ in range(2):
        memory.release(Slot("acme", "crm", "a1"), refund_month="2026-11")

    assert memory.used("acme", "crm", "2026-11") == 0
    assert _ask(memory, "a1") is Verdict.ADMITTED


def test_months_are_counted_apart(memory: Memory) -> None:
    _open(memory, _terms(concurrent=9, monthly=1))

    assert _ask(memory, "a1", month="2026-11") is Verdict.ADMITTED
    assert _ask(memory, "a2", month="2026-11") is Verdict.QUOTA
    assert _ask(memory, "a2", month="2026-12") is Verdict.ADMITTED


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(0, 6), st.lists(st.booleans(), max_size=12))
def test_the_script_decides_as_the_rules_do(
    valkey: Valkey, concurrent: int, monthly: int, moves: list[bool]
) -> None:
    redis.Redis.from_url(valkey.url).flushdb()
    memory = ValkeyMemory(valkey.url)
    _open(memory, _terms(concurrent=concurrent, monthly=monthly))
    held: list[str] = []
    used = 0
    for n, asks in enumerate(moves):
        if not asks and held:
            memory.release(Slot("acme", "crm", held.pop()))
            continue
        expected = decide(
            in_flight=len(held), concurrent_limit=concurrent, used=used, monthly_limit=monthly
        )
        assert _ask(memory, f"a{n}") is expected
        if expected is Verdict.ADMITTED:
            held.append(f"a{n}")
            used += 1
    memory.close()


def test_a_thousand_at_once_never_exceed_either_limit(memory: Memory, valkey: Valkey) -> None:
    _open(memory, _terms(concurrent=20, monthly=100))
    verdicts: Counter[Verdict] = Counter()
    most = 0
    lock = threading.Lock()

    def worker(n: int) -> None:
        nonlocal most
        own = ValkeyMemory(valkey.url)
        for i in range(125):
            verdict = _ask(own, f"a{n}-{i}")
            with lock:
                verdicts[verdict] += 1
            if verdict is Verdict.ADMITTED:
                in_flight = own.in_flight("acme", ["crm"])
                with lock:
                    most = max(most, in_flight)
                if i % 2:
                    own.release(Slot("acme", "crm", f"a{n}-{i}"))
                else:
                    threading.Timer(0.01, own.release, [Slot("acme", "crm", f"a{n}-{i}")]).run()
        own.close()

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most <= 20
    assert verdicts[Verdict.ADMITTED] == 100
    assert verdicts.total() == 1000


def test_slots_whose_look_is_due_are_told_with_their_age(memory: Memory) -> None:
    _open(memory)
    _ask(memory, "a1", look_in_ms=1)
    _ask(memory, "a2")
    due = until(lambda: memory.due(10), every_s=0.002)

    assert [each.slot for each in due] == [A1]
    assert due[0].age_ms is not None
    assert 1 <= due[0].age_ms < 60_000
    memory.look_again(A1, 60_000)
    assert memory.due(10) == []


def test_a_slot_that_was_released_is_not_looked_at_again(memory: Memory) -> None:
    _open(memory)
    memory.look_again(A1, -1000)
    memory.begin(A1, OWN, -1000)
    memory.begin_undo(A1, OWN, -1000)

    assert memory.due(10) == []
    assert memory.claims() == []
    assert memory.rolling_back("acme") == 0


def test_one_that_is_not_over_is_looked_at_without_holding_a_place(memory: Memory) -> None:
    _open(memory, _terms(concurrent=1))
    _ask(memory, "a1")

    memory.release(A1, look_in_ms=-1)

    assert [each.slot for each in memory.due(10)] == [A1]
    assert _ask(memory, "a2") is Verdict.ADMITTED
    memory.release(A1)
    assert memory.due(10) == []


def test_a_slot_of_another_era_is_taken_and_counted_once_more(memory: Memory) -> None:
    memory.boot("acme", memory.begin_boot(), "stable", [_terms(concurrent=2)])
    era = lease(memory)
    _ask(memory, "a1")
    memory.hold(A1, "2026-11", era)
    assert memory.used("acme", "crm", "2026-11") == 1  # nothing was lost since

    forgotten = Slot("acme", "crm", "a0")
    memory.hold(forgotten, "2026-11", "another")

    assert memory.used("acme", "crm", "2026-11") == 2
    assert memory.is_watched(forgotten)
    assert _ask(memory, "a2") is Verdict.CONCURRENCY


def test_a_slot_that_comes_late_to_a_rebuild_is_taken_as_the_era_begins(memory: Memory) -> None:
    memory.boot("acme", memory.begin_boot(), "stable", [_terms(concurrent=1)])
    late = Slot("acme", "crm", "a0")
    memory.hold(late, "2026-11", "before")
    memory.restore_use({("acme", "crm", "2026-11"): 1})
    assert not memory.is_watched(late)

    lease(memory)

    assert memory.is_watched(late)
    assert memory.used("acme", "crm", "2026-11") == 2
    assert _ask(memory, "a1") is Verdict.CONCURRENCY


def test_use_is_never_restored_to_less_than_was_counted(memory: Memory) -> None:
    memory.restore_use({("acme", "crm", "2026-11"): 9})
    _open(memory)
    _ask(memory, "a1")

    memory.restore_use({("acme", "crm", "2026-11"): 9})

    assert memory.used("acme", "crm", "2026-11") == 10


def test_one_rebuild_goes_on_at_a_time_and_another_when_it_gave_up(memory: Memory) -> None:
    era = memory.begin_rebuild(60)
    assert era
    assert memory.begin_rebuild(60) is None
    assert memory.continue_rebuild(era, 60)

    assert memory.continue_rebuild(era, 0)

    assert memory.begin_rebuild(60)


def test_a_rebuild_under_which_memory_was_lost_begins_no_era(memory: Memory) -> None:
    era = memory.begin_rebuild(60)
    assert era
    memory.continue_rebuild(era, 0)  # gone, as after a loss

    assert not memory.continue_rebuild(era, 60)
    assert not memory.create_lease(33, era, "2026-01-01T00:00:00.000000Z")
    assert memory.lease_left_s() == 0


def test_who_is_at_an_action_is_known_until_its_slot_is_released(memory: Memory) -> None:
    _open(memory)
    _ask(memory, "a1", look_in_ms=1)

    memory.begin(A1, OWN, 60_000)

    assert memory.claims() == [(A1, OWN)]
    assert memory.due(10) == []
    other = OWN.evolve(pid=2)
    memory.begin_undo(A1, other, 60_000)
    assert memory.claims() == [(A1, other)]
    memory.release(A1)
    assert memory.claims() == []


def test_the_key_of_another_generation_is_refused(memory: Memory) -> None:
    memory.boot("acme", memory.begin_boot(), "stable", [_terms()], 2)
    lease(memory)

    assert _ask(memory, "a1", generation=1) is Verdict.STALE_KEY
    assert _ask(memory, "a1", generation=3) is Verdict.STALE_KEY
    assert _ask(memory, "a1", generation=2) is Verdict.ADMITTED
    assert _ask(memory, "a2") is Verdict.ADMITTED  # pushed: signed by nobody
    assert sorted(memory.held("acme", "crm")) == ["a1", "a2"]


@pytest.mark.parametrize(
    ("state", "verdict"), [("suspended", Verdict.SUSPENDED), ("draining", Verdict.DRAINING)]
)
def test_an_entitlement_that_rests_is_not_admitted(
    memory: Memory, state: str, verdict: Verdict
) -> None:
    resting = dataclasses.replace(_terms(), state=state)  # type: ignore[arg-type]
    _open(memory, resting)

    assert _ask(memory, "a1") is verdict
    assert memory.held("acme", "crm") == []


def test_a_forgotten_governor_is_an_unknown_tenant(memory: Memory) -> None:
    _open(memory)
    memory.forget("acme", memory.begin_boot())

    assert _ask(memory, "a1") is Verdict.UNKNOWN_TENANT


def test_what_was_lost_is_restored_before_anything_is_admitted(memory: Memory) -> None:
    other = Slot("acme", "crm", "a0")
    memory.restore_use({("acme", "crm", "2026-11"): 9})
    memory.restore_slots(held=[A1], looked_at=[other])
    _open(memory, _terms(concurrent=2, monthly=10))

    assert {(each.slot, each.age_ms) for each in memory.due(10)} == {(A1, None), (other, None)}
    assert _ask(memory, "a2") is Verdict.ADMITTED
    assert _ask(memory, "a3") is Verdict.CONCURRENCY
    memory.release(A1)
    assert _ask(memory, "a3") is Verdict.QUOTA


def test_what_is_being_undone_is_known_until_the_slot_is_released(memory: Memory) -> None:
    _open(memory)
    _ask(memory, "a1")
    memory.begin_undo(A1, OWN, 1000)
    assert memory.rolling_back("acme") == 1
    assert memory.unsealed_count() == 1
    memory.release(A1)
    assert memory.rolling_back("acme") == 0


def test_a_released_slot_marks_its_ledger(memory: Memory) -> None:
    memory.release(A1)

    assert [account for account, _ in memory.take_unsealed(10, 60)] == ["acme"]


def test_orphans_are_noted(memory: Memory) -> None:
    assert memory.orphans() == 0
    memory.note_orphans(3)
    assert memory.orphans() == 3


def test_a_tick_is_claimed_by_one(memory: Memory) -> None:
    assert [memory.claim_tick("reap", 10) for _ in range(3)] == [True, False, False]


def test_who_worked_lately_is_known(memory: Memory) -> None:
    memory.beat_alive("actions", 10)

    assert memory.alive(["actions", "pump"]) == {"actions": True, "pump": False}


def test_counts_are_frozen_and_told_until_they_are_dropped(memory: Memory) -> None:
    for reason, batch in (("quota-exceeded", "1"), ("draining", "2"), ("quota-exceeded", "3")):
        for _ in range(2):  # told twice, counted once
            memory.count("signals_refused:acme", reason, batch)
    first = memory.take_counts("w1")
    memory.count("webhook_rejected:_system", "bad-signature", "4")

    assert first == {"w1": {"signals_refused:acme": {"quota-exceeded": 2, "draining": 1}}}
    assert memory.take_counts("w2") == {
        "w1": {"signals_refused:acme": {"quota-exceeded": 2, "draining": 1}},
        "w2": {"webhook_rejected:_system": {"bad-signature": 1}},
    }
    memory.drop_counts("w1")
    memory.drop_counts("w2")
    assert memory.take_counts("w3") == {}


def test_the_end_of_a_run_is_announced(memory: Memory, valkey: Valkey) -> None:
    async def hear() -> str:
        ended = ValkeyNotices(valkey.url).ended_runs()
        waiting = asyncio.ensure_future(anext(ended))
        while not waiting.done():
            await asyncio.to_thread(memory.announce, "run-1")
            await asyncio.sleep(0.01)
        await ended.aclose()  # type: ignore[attr-defined]
        return waiting.result()

    assert asyncio.run(hear()) == "run-1"


def test_a_server_that_is_not_there_is_an_outage_within_its_bound() -> None:
    memory = ValkeyMemory("redis://127.0.0.1:1/0")

    with pytest.raises(OutageError):
        memory.lease_left_s()


def test_a_restarted_server_is_found_again_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = Valkey(tmp_path_factory.mktemp("restarted"))
    server.start()
    memory = ValkeyMemory(server.url)
    lease(memory)
    server.kill()
    with pytest.raises(OutageError):
        memory.lease_left_s()
    server.start()

    assert memory.lease_left_s() >= 0
    memory.close()
    server.kill()


def test_a_marked_ledger_is_given_once_and_again_when_its_taker_died(memory: Memory) -> None:
    memory.mark_unsealed("a")
    memory.mark_unsealed("a")
    memory.mark_unsealed("b")

    taken = memory.take_unsealed(10, 60)

    assert sorted(account for account, _ in taken) == ["a", "b"]
    assert memory.take_unsealed(10, 60) == []
    assert memory.unsealed_count() == 2
    for account, token in taken:
        memory.sealed(account, token)
    assert memory.unsealed_count() == 0
    memory.mark_unsealed("c")
    ((account, token),) = memory.take_unsealed(10, 0)
    assert account == "c"
    ((account, later),) = memory.take_unsealed(10, 60)
    assert (account, later == token) == ("c", False)
    memory.sealed("c", token)  # too late: somebody else has it
    assert memory.unsealed_count() == 1


def test_a_mark_made_while_its_ledger_is_sealed_stays(memory: Memory) -> None:
    memory.mark_unsealed("a")
    ((_, token),) = memory.take_unsealed(10, 60)
    memory.mark_unsealed("a")

    memory.sealed("a", token)

    assert [account for account, _ in memory.take_unsealed(10, 60)] == ["a"]


def test_no_more_ledgers_are_taken_than_asked_for(memory: Memory) -> None:
    for n in range(5):
        memory.mark_unsealed(str(n))

    first = memory.take_unsealed(2, 0)
    second = memory.take_unsealed(3, 60)

    assert (len(first), len(second)) == (2, 3)
    assert {account for account, _ in first} <= {account for account, _ in second}


def test_a_lease_that_ran_out_is_begun_anew_but_never_one_that_was_lost(memory: Memory) -> None:
    _open(memory)
    lease(memory, 1)
    until(lambda: not memory.lease_left_s(), every_s=0.005)

    assert memory.extend_lease(0.5)
    assert 0 < memory.lease_left_s() <= 0.5
    assert _ask(memory, "a1") is Verdict.ADMITTED


def test_a_degraded_mode_refuses_counts_and_is_lifted_again(memory: Memory) -> None:
    _open(memory)
    assert memory.note_failure(Scope.ALL, Health(), "since", "UNAVAILABLE", "away") == 1
    assert memory.note_failure(Scope.ALL, Health(), "since", "UNAVAILABLE", "away") == 1  # again
    assert memory.note_failure(Scope.ALL, Health(), "later", "ABORTED", "moved") == 2
    outage, other = _outage("o"), _outage("p")
    assert memory.degrade(Scope.ALL, outage, instead_of=None)
    assert not memory.degrade(Scope.ALL, other, instead_of=None)

    assert [_ask(memory, a) for a in ("a1", "a1", "a2")] == [Verdict.DEGRADED] * 3
    assert memory.begin(A1, OWN, 1) is Verdict.DEGRADED
    assert memory.standing("acme") is Verdict.DEGRADED
    assert memory.health(Scope.ALL) == Health(
        is_degraded=True,
        failures=2,
        failing_since="since",
        error_code="ABORTED",
        error_detail="moved",
        outage=outage,
        refused={"acme": 3},
        accepted=0,
    )

    over = outage.evolve(recovered_at="2026-01-01T00:00:09.000000Z")
    assert not memory.owe(Scope.ALL, over, instead_of=other)
    assert memory.standing("acme") is Verdict.DEGRADED
    assert memory.owe(Scope.ALL, over, instead_of=outage)
    assert memory.standing("acme") is Verdict.ADMITTED
    assert memory.health(Scope.ALL) == Health(good=1)
    assert memory.owe(Scope.ALL, other, instead_of=None)
    owed = sorted(memory.owed(Scope.ALL), key=lambda each: each.outage.outage_id)
    assert owed == [Owed(over, {"acme": 3}), Owed(other, {})]
    memory.receipted(Scope.ALL, "o")
    assert memory.owed(Scope.ALL) == [Owed(other, {})]


def test_a_recovery_and_its_lease_are_one_moment_and_a_lapse_is_owed_once(memory: Memory) -> None:
    _open(memory)
    assert memory.extend_lease(0.05)
    outage, lapse = _outage("o"), _outage("lapse")
    assert memory.degrade(Scope.ALL, outage, instead_of=None)
    until(lambda: not memory.lease_left_s(), every_s=0.005)

    assert memory.owe(Scope.ALL, outage, instead_of=outage, lease_s=0.3)
    assert memory.lease_left_s() > 0
    assert not memory.owe(Scope.ALL, lapse, instead_of=None, lease_s=0.3)  # by a check beside it
    assert [each.outage for each in memory.owed(Scope.ALL)] == [outage]

    until(lambda: not memory.lease_left_s(), every_s=0.005)
    assert memory.owe(Scope.ALL, lapse, instead_of=None, lease_s=5)
    assert not memory.owe(Scope.ALL, _outage("again"), instead_of=None, lease_s=5)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"outage_id": 7}'])
def test_an_outage_that_cannot_be_read_is_an_outage_of_memory(
    memory: Memory, valkey: Valkey, text: str
) -> None:
    redis.Redis.from_url(valkey.url).hset("ggen:health:all", "outage", text)

    with pytest.raises(OutageError):
        memory.health(Scope.ALL)


def _outage(outage_id: str, *accounts: str) -> Outage:
    return Outage(
        outage_id=outage_id,
        scope=Scope.SOME if accounts else Scope.ALL,
        accounts=list(accounts),
        reason="sqlite_recovered",
        error_code="UNAVAILABLE",
        error_detail="away",
        began_at="2026-01-01T00:00:00.000000Z",
    )


def test_a_good_check_forgets_the_refusals_before_it_and_none_since(memory: Memory) -> None:
    _open(memory)
    memory.count("signals_refused:acme", "documents-unavailable", "b1", "acme")
    before = memory.health(Scope.ALL)
    memory.count("signals_refused:acme", "documents-unavailable", "b2", "acme")
    memory.count("signals_refused:acme", "quota-exceeded", "b3")

    memory.note_success(Scope.ALL, before)

    assert memory.health(Scope.ALL).refused == {"acme": 1}


def test_some_tenants_are_refused_while_others_are_served(memory: Memory) -> None:
    _open(memory)
    outage = _outage("o", "acme")
    assert memory.degrade(Scope.SOME, outage, instead_of=None)

    assert _ask(memory, "a1") is Verdict.DEGRADED
    assert memory.begin(A1, OWN, 1) is Verdict.DEGRADED
    assert memory.standing("other") is Verdict.ADMITTED
    assert memory.health(Scope.SOME).refused == {"acme": 1}
    assert not memory.health(Scope.ALL).is_degraded
    assert memory.owe(Scope.SOME, outage, instead_of=outage)
    assert memory.standing("acme") is Verdict.ADMITTED


def test_one_drill_at_a_time_which_ends_by_itself(memory: Memory) -> None:
    drill = Drill(drill_id="d1", fault=Fault.HANG, accounts=["acme"])
    assert memory.begin_drill(drill, 0.2)
    assert not memory.begin_drill(Drill(drill_id="d2", fault=Fault.HANG), 60)
    assert memory.drill() == drill
    memory.count("signals_refused:acme", "documents-unavailable", "b1", "acme")
    assert memory.health(Scope.SOME).refused == {"acme": 1}
    until(lambda: not memory.drill(), every_s=0.005)

    memory.count("signals_refused:acme", "documents-unavailable", "b2", "acme")
    assert memory.health(Scope.SOME).refused == {"acme": 1}
    assert memory.health(Scope.ALL).refused == {"acme": 1}
    assert memory.begin_drill(Drill(drill_id="d2", fault=Fault.HANG), 60)
    memory.end_drill("d1")
    assert memory.drill()
    memory.end_drill("d2")
    assert memory.drill() is None


def test_who_was_seen_when_is_known_for_longer_than_it_is_believed(memory: Memory) -> None:
    assert memory.seen(["beat"]) == {"beat": None}
    memory.beat_alive("beat", 0.05)
    until(lambda: not memory.alive(["beat"])["beat"], every_s=0.005)

    seen = memory.seen(["beat"])["beat"]
    assert seen is not None
    assert 0.05 <= seen.ago_s < 10
    assert seen.streak_s == 0
    memory.beat_alive("beat", 10)
    begun_anew = memory.seen(["beat"])["beat"]
    assert begun_anew is not None
    assert begun_anew.streak_s < seen.ago_s
    time.sleep(0.01)
    memory.beat_alive("beat", 10)
    going_on = memory.seen(["beat"])["beat"]
    assert going_on is not None
    assert going_on.streak_s >= 0.01 > going_on.ago_s


def test_a_tick_that_is_dropped_can_be_claimed_again(memory: Memory) -> None:
    assert memory.claim_tick("t", 60)
    assert not memory.claim_tick("t", 60)
    memory.drop_tick("t")
    assert memory.claim_tick("t", 60)


def test_the_spools_depth_is_noted(memory: Memory) -> None:
    assert memory.spooled() == 0
    memory.note_spooled()
    memory.note_spooled()
    assert memory.spooled() == 2
    memory.note_spooled(0)
    assert memory.spooled() == 0


def test_a_letter_waits_until_it_is_delivered(memory: Memory) -> None:
    letter = Letter(Alert("r", "critical", "cause", "acme", "subject", "detail"), "address")
    memory.post(letter)
    memory.post(letter)

    assert memory.take_letters(10, 60) == [letter]
    assert memory.take_letters(10, 60) == []  # in the first taker's hands
    memory.not_delivered(letter, "nobody there", 0)
    (again,) = memory.take_letters(10, 0)
    assert (again.attempts, again.fault) == (1, "nobody there")
    assert memory.undelivered(10) == [again]
    memory.delivered(again)
    (taken,) = memory.deliveries(10)
    assert taken.letter == again
    assert 0 <= taken.ago_s < 60
    memory.post(letter)  # told before
    assert memory.take_letters(10, 0) == []


def test_a_process_without_a_file_descriptor_is_an_outage(valkey: Valkey) -> None:
    code = (
        "import resource, sys\n"
        "from adapters.valkey.memory import ValkeyMemory\n"
        "from governor.errors import OutageError\n"
        "memory = ValkeyMemory(sys.argv[1])\n"
        "taken = []\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n"
        "    while True: taken.append(open('/dev/null'))\n"
        "except OSError: pass\n"
        "try: memory.lease_left_s()\n"
        "except OutageError as error: print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, valkey.url], capture_output=True, text=True, check=False
    )

    assert done.stdout == "memory-unavailable\n", done.stderr
