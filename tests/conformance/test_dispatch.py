"""Which action is carried out next: the next tenant's, and of that the oldest; who is called."""

import time
from collections import Counter, deque

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.valkey.memory import ValkeyMemory
from governor.health import Outage, Scope
from governor.records import ProcessClaim
from ports.dispatch import Turn, Waiting
from ports.memory import Memory
from ports.slots import Slot
from tests.conftest import Valkey
from tests.support.leases import lease
from tests.support.waiting import until

LIMIT_MS = 3_600
JUST_NOW_US = 4_000_000_000_000_000
"""Some clock is ahead: nothing of it has waited."""
CLAIM = ProcessClaim(
    host="host", pid=1, process_started=2.5, claimed_at="2026-11-26T12:00:00.000000Z"
)

OUTAGE = Outage(
    outage_id="o",
    reason="sqlite_recovered",
    error_code="UNAVAILABLE",
    error_detail="away",
    began_at="2026-11-26T12:00:00.000000Z",
)


@pytest.fixture
def memory(valkey: Valkey) -> Memory:
    redis.Redis.from_url(valkey.url).flushall()
    memory = ValkeyMemory(valkey.url)
    lease(memory)
    return memory


def _put(
    memory: Memory, account_id: str, number: int, *, weight: int = 1, since_us: int = JUST_NOW_US
) -> int:
    """How many processes are to be called."""
    slot = Slot(account_id, "crm", f"{account_id}-{number}")
    now_us = time.time_ns() // 1000
    waiting = Waiting(slot, "crm.resize", LIMIT_MS, since_us + number, now_us, weight)
    return memory.enqueue([waiting])[0].count


def _take(memory: Memory, server: str = "one", **changes: object) -> Turn:
    return memory.take(LIMIT_MS, server, CLAIM, **changes)  # type: ignore[arg-type]


def _all(memory: Memory) -> list[str]:
    return [turn.slot.action_id for turn in iter(lambda: _take(memory), Turn(None)) if turn.slot]


def test_tenants_take_turns_and_each_is_served_in_its_order(memory: Memory) -> None:
    for number in range(4):
        _put(memory, "loud", number)
    _put(memory, "quiet", 9)
    _put(memory, "late", 0)

    assert _all(memory) == ["loud-0", "quiet-9", "late-0", "loud-1", "loud-2", "loud-3"]


def test_a_weight_is_a_longer_turn(memory: Memory) -> None:
    for number in range(6):
        _put(memory, "heavy", number, weight=3)
        _put(memory, "light", number)

    taken = [name.partition("-")[0] for name in _all(memory)]

    assert taken[:8] == ["heavy"] * 3 + ["light"] + ["heavy"] * 3 + ["light"]


def test_an_id_waits_once_however_often_it_is_put(memory: Memory) -> None:
    for _ in range(3):
        _put(memory, "acme", 1)

    assert _all(memory) == ["acme-1"]
    _put(memory, "acme", 1)
    assert _all(memory) == ["acme-1"]  # it was taken by one that died


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1),
    puts=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=30),
)
def test_the_order_is_that_of_a_simple_model(
    valkey: Valkey, weights: dict[str, int], puts: list[tuple[str, int]]
) -> None:
    redis.Redis.from_url(valkey.url).flushall()
    memory = ValkeyMemory(valkey.url)
    lease(memory)
    ring, lists = deque[str](), dict[str, list[int]]()
    for account, number in puts:
        _put(memory, account, number, weight=weights.get(account, 1))
        if account not in ring:
            ring.append(account)
        lists[account] = sorted({*lists.get(account, []), number})
    expected = []
    while ring:
        account = ring.popleft()
        turn, lists[account] = lists[account][: (n := weights.get(account, 1))], lists[account][n:]
        expected += [f"{account}-{number}" for number in turn]
        if lists[account]:
            ring.append(account)

    assert _all(memory) == expected
    memory.close()


def _round(memory: Memory) -> int:
    return memory.leave(LIMIT_MS, "nobody", None).round


def test_each_slow_action_has_a_process_called_for_it_once_one_has_come(memory: Memory) -> None:
    """Nothing is known of its handler: it may wait for something."""
    assert [_put(memory, "acme", number) for number in range(3)] == [1, 0, 0]

    assert _take(memory, "one", called_in=_round(memory)).call.count == 2

    assert _put(memory, "other", 1) == 1
    assert [_put(memory, "acme", number) for number in range(3, 12)] == [1] * 5 + [0] * 4


def test_a_call_that_came_too_late_does_nothing(memory: Memory, valkey: Valkey) -> None:
    _put(memory, "acme", 0)
    late = _round(memory)
    redis.Redis.from_url(valkey.url).delete(f"ggen:dispatch:{LIMIT_MS}:called")  # a second passed
    assert _put(memory, "acme", 1) == 1
    assert [_put(memory, "acme", number) for number in range(2, 9)] == [0] * 7

    turn = _take(memory, "late", called_in=late)
    assert (turn.slot, turn.call.count) == (None, 0)

    assert _take(memory, "one", called_in=_round(memory)).slot


def test_where_all_are_busy_one_call_a_second_is_made(memory: Memory, valkey: Valkey) -> None:
    server, calls = redis.Redis.from_url(valkey.url), 0
    for second in range(20):
        calls += sum(_put(memory, "acme", 100 * second + number) for number in range(20))
        server.delete(f"ggen:dispatch:{LIMIT_MS}:called")
    assert calls == 20


def test_while_handlers_are_short_few_are_called(memory: Memory) -> None:
    _put(memory, "acme", 0)
    _take(memory, called_in=_round(memory))
    assert _take(memory, ended=("crm.resize", 1.0)).slot is None  # it took a millisecond
    assert [_put(memory, "acme", number) for number in range(1, 9)] == [1] + [0] * 7

    turn = _take(memory, "one", called_in=_round(memory))
    assert turn.is_short
    assert turn.call.count == 0
    assert memory.leave(LIMIT_MS, "one", ("crm.resize", 1.0)).count == 1
    assert _take(memory, "two", called_in=_round(memory)).call.count == 0
    slow = _take(memory, "two", ended=("crm.resize", 500.0))
    assert not slow.is_short
    assert slow.call.count == 5  # one for each that still waits


@pytest.mark.parametrize(
    ("most_serving", "took_ms", "waited_ms", "most"),
    [(2, 0.1, 1_200, 2), (2, 1.2, 1_200, 4), (2, 0.1, 2_500, 8), (0, 0.1, 1_800, 8)],
)
def test_short_handlers_have_another_process_for_what_waits_but_not_too_many(
    memory: Memory, valkey: Valkey, most_serving: int, took_ms: float, waited_ms: int, most: int
) -> None:
    few = ValkeyMemory(valkey.url, most_serving)
    memory.leave(LIMIT_MS, "before", ("crm.resize", took_ms))
    long_ago_us = time.time_ns() // 1000 - waited_ms * 1000

    called = 0
    for number in range(8):
        if _put(few, "acme", number, since_us=long_ago_us):
            called += 1
            _take(few, f"server-{number}", called_in=_round(few))

    assert called == most
    few.close()


def test_a_short_action_does_not_wait_for_who_is_at_a_slow_one(memory: Memory) -> None:
    _put(memory, "acme", 0)
    assert _take(memory, "slow", called_in=_round(memory)).slot  # of its handler nothing is known
    memory.leave(LIMIT_MS, "another", ("crm.short", 1.0))
    slot = Slot("quiet", "crm", "quiet-1")
    just_now = time.time_ns() // 1000
    short = Waiting(slot, "crm.short", LIMIT_MS, just_now, just_now, 1)

    assert memory.enqueue([short])[0].count == 1


def test_one_that_seems_stuck_is_helped(memory: Memory, valkey: Valkey) -> None:
    _put(memory, "acme", 0)
    _take(memory, called_in=_round(memory))
    _take(memory, ended=("crm.resize", 1.0))
    _put(memory, "acme", 1)
    _put(memory, "acme", 2)
    assert _take(memory, called_in=_round(memory)).slot
    redis.Redis.from_url(valkey.url).delete(
        f"ggen:dispatch:{LIMIT_MS}:taken"
    )  # a tenth of a second

    assert [limit_ms for limit_ms, _ in memory.unserved()] == [LIMIT_MS]


def test_the_longer_they_wait_the_more_are_called(memory: Memory) -> None:
    _put(memory, "acme", 0)
    _take(memory, called_in=_round(memory))
    _take(memory, ended=("crm.resize", 1.0))
    for number in range(9):
        _put(memory, "acme", number, since_us=1_000_000)

    turns = [_take(memory, f"p{n}", called_in=_round(memory)) for n in range(5)]

    assert [turn.call.count for turn in turns] == [1] * 5


def test_who_leaves_one_that_may_be_stuck_calls_another(memory: Memory) -> None:
    for number in range(4):
        _put(memory, "acme", number)
    _take(memory, "stuck", called_in=_round(memory), ended=("crm.resize", 1.0))
    _take(memory, "good")

    assert memory.leave(LIMIT_MS, "good", ("crm.resize", 1.0)).count == 1


def test_one_that_stays_is_woken_without_a_message(memory: Memory) -> None:
    assert not _take(memory).stays  # it does not ask to
    assert _take(memory, "one", stays_ms=5_000).stays
    assert not _take(memory, "two", stays_ms=5_000).stays  # one does already

    assert _put(memory, "acme", 1) == 0
    memory.wait(LIMIT_MS, "one", 60_000)  # at once
    assert _put(memory, "acme", 2) == 1  # it may have died: nothing was taken yet

    assert _take(memory, "one").slot == Slot("acme", "crm", "acme-1")


def test_one_that_stayed_long_enough_is_not_relied_on(memory: Memory) -> None:
    assert _take(memory, "one", stays_ms=1).stays
    memory.wait(LIMIT_MS, "one", 20)

    assert _put(memory, "acme", 1) == 1


def test_while_nothing_may_begin_nobody_stays(memory: Memory) -> None:
    _put(memory, "acme", 1)
    assert memory.degrade(Scope.ALL, OUTAGE, instead_of=None)

    assert not _take(memory, stays_ms=5_000).stays


def test_who_gets_nothing_calls_nobody_and_what_comes_then_calls_one(memory: Memory) -> None:
    _put(memory, "acme", 1)
    _take(memory, called_in=_round(memory), ended=("crm.resize", 1.0))
    assert _take(memory).slot is None

    assert _put(memory, "acme", 2) == 1


def test_lists_that_nobody_serves_are_found(memory: Memory) -> None:
    _put(memory, "acme", 1)
    assert memory.unserved() == []  # somebody was called just now

    until(lambda: [limit_ms for limit_ms, _ in memory.unserved()] == [LIMIT_MS], 3)

    assert memory.unserved() == []
    assert _all(memory) == ["acme-1"]
    assert memory.unserved() == []


def test_a_ring_that_was_lost_is_mended_by_the_next_look(memory: Memory, valkey: Valkey) -> None:
    _put(memory, "acme", 1)
    redis.Redis.from_url(valkey.url).delete(f"ggen:dispatch:{LIMIT_MS}:ring")
    assert _take(memory).slot is None

    _put(memory, "acme", 1)

    assert _all(memory) == ["acme-1"]


def test_nothing_is_taken_while_nothing_may_begin(memory: Memory) -> None:
    _put(memory, "acme", 1)
    assert memory.degrade(Scope.ALL, OUTAGE, instead_of=None)

    assert _take(memory).slot is None
    assert memory.queues(10)[0] == 1


def test_depth_and_age_are_told_of_the_longest(memory: Memory) -> None:
    for account_id, count in (("a", 1), ("b", 3), ("c", 2)):
        for number in range(count):
            _put(memory, account_id, number, since_us=1_000_000)

    other = Slot("c", "crm", "c-9")
    now_us = time.time_ns() // 1000
    memory.enqueue([Waiting(other, "crm.resize", 9_000, 1, now_us)])  # of another limit
    depth, longest = memory.queues(2)

    assert depth == 7
    assert sorted((queue.account_id, queue.depth) for queue in longest) == [("b", 3), ("c", 3)]
    assert all(queue.oldest_s > 1000 for queue in longest)


def test_everybody_gets_a_share_whoever_floods(memory: Memory) -> None:
    for number in range(200):
        _put(memory, "loud", number)
    taken = Counter[str]()
    for number in range(40):
        _put(memory, "quiet", number)
        for _ in range(2):
            slot = _take(memory).slot
            assert slot
            taken[slot.account_id] += 1
    assert taken == {"loud": 40, "quiet": 40}
