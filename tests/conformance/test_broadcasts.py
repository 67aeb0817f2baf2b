"""What Memory promises of versions in force, and of how actions under them ended."""

import pytest
import redis

from adapters.valkey.broadcasts import ValkeyHearing
from adapters.valkey.memory import ValkeyMemory
from governor.bake import Outcomes
from governor.errors import OutageError
from governor.records import ProcessClaim
from ports.broadcasts import Answer, InForce, Listening
from ports.memory import Memory, Terms
from ports.slots import Ended, Request, Slot
from tests.conftest import Valkey
from tests.support.leases import lease

TERMS = Terms("crm", "crm", "starter", "1.0.0", 5, 100, ["seats.changed"])
CLAIM = ProcessClaim(
    host="host", pid=1, process_started=2.5, claimed_at="2026-11-26T12:00:00.000000Z"
)


@pytest.fixture
def memory(valkey: Valkey) -> Memory:
    redis.Redis.from_url(valkey.url).flushall()
    memory = ValkeyMemory(valkey.url)
    memory.boot("acme", memory.begin_boot(), "stable", [TERMS])
    lease(memory)
    return memory


def _admitted(memory: Memory, action_id: str) -> str:
    request = Request("acme", action_id, "seats.changed", None, None, "a" * 64, "2026-11", 15_000)
    return memory.admit([request])[0].in_force


def test_admission_names_another_version_in_force(memory: Memory) -> None:
    assert _admitted(memory, "a1") == ""
    memory.broadcast([InForce("crm~starter", "1.0.0", "d0")])
    assert _admitted(memory, "a2") == ""
    memory.broadcast([InForce("crm~starter", "1.1.0", "d1"), InForce("crm~pro", "9.0.0", "d9")])
    assert _admitted(memory, "a3") == "1.1.0"


def test_a_version_that_was_refused_is_not_offered_again(memory: Memory) -> None:
    refused = Terms(*[getattr(TERMS, name) for name in TERMS.__slots__[:-1]], refused_policy="d1")
    memory.boot("acme", memory.begin_boot(), "stable", [refused])

    memory.broadcast([InForce("crm~starter", "1.1.0", "d1")])
    assert _admitted(memory, "a1") == ""
    memory.broadcast([InForce("crm~starter", "1.2.0", "d2")])
    assert _admitted(memory, "a2") == "1.2.0"


def test_the_versions_in_force_and_when_documents_were_asked(memory: Memory) -> None:
    first = InForce("crm~starter", "1.0.0", "d0")
    memory.broadcast([first])
    assert memory.in_force() == ([first], None)

    watched = InForce("crm~starter", "1.1.0", "d1", "2026-11-26T12:00:00.000000Z", True)
    memory.broadcast([watched], is_all=True)

    known, age_s = memory.in_force()
    assert known == [watched]
    assert age_s is not None
    assert age_s < 5


def test_documents_that_were_restored_are_believed_after_a_while(
    memory: Memory, valkey: Valkey
) -> None:
    newer, older = InForce("crm~starter", "1.1.0", "d1"), InForce("crm~starter", "1.0.0", "d0")
    memory.broadcast([newer, InForce("crm~gone", "1.0.0", "d9")])

    memory.broadcast([older], is_all=True)
    assert len(memory.in_force()[0]) == 2  # it may have been read before the newer one was told
    server = redis.Redis.from_url(valkey.url)
    server.hset("ggen:policies:since", mapping={"crm~starter": 0, "crm~gone": 0})
    memory.broadcast([older], is_all=True)

    assert memory.in_force()[0] == [older]


def test_answers_are_kept_for_each_process(memory: Memory) -> None:
    answer = Answer("crm~starter", "1.0.0", "d0", "nack", "t", "policy-unusable", "why")
    for told in ((), (answer,)):
        memory.answer(Listening("ingress", CLAIM, told, 1.5))

    (kept,) = memory.answers()
    assert (kept.role, kept.claim, kept.answers, kept.confirmed_s) == (
        "ingress",
        CLAIM,
        (answer,),
        1.5,
    )
    memory.forget_listening(kept.name)
    assert memory.answers() == []


def test_an_announcement_is_heard(memory: Memory, valkey: Valkey) -> None:
    hearing = ValkeyHearing(valkey.url).hear(60)
    next(hearing)

    memory.broadcast([InForce("crm~starter", "1.1.0", "d1")])

    next(hearing)  # would take a minute otherwise


def test_without_an_announcement_it_is_time_to_look_all_the_same(
    memory: Memory, valkey: Valkey
) -> None:
    hearing = ValkeyHearing(valkey.url).hear(0.05)
    next(hearing)
    memory.broadcast([])  # tells nothing new
    next(hearing)


def test_a_connection_that_breaks_is_said(valkey: Valkey) -> None:
    hearing = ValkeyHearing(valkey.url).hear(60)
    next(hearing)
    redis.Redis.from_url(valkey.url).client_kill_filter(_type="pubsub")

    with pytest.raises(OutageError):
        next(hearing)


def test_how_an_action_ended_is_counted_once(memory: Memory) -> None:
    slots = [Slot("acme", "crm", action_id) for action_id in ("a1", "a2", "a3")]
    for slot in slots:
        _admitted(memory, slot.action_id)

    for _ in range(2):
        memory.release(slots[0], ended=Ended("d0", "complete"))
        memory.release(slots[1], ended=Ended("d0", "rollback_failed"), look_in_ms=10)
    memory.release(slots[2])

    both = {"acme": (2, 1)}
    assert memory.outcomes("d0") == Outcomes(complete=1, rollback_failed=1, accounts=both)
    assert memory.outcomes("d1") == Outcomes()
