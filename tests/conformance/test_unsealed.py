"""Which ledgers are sealed first: those that somebody waits for."""

import time

import pytest
import redis

from adapters.valkey.memory import ValkeyMemory
from ports.memory import Memory
from tests.conftest import Valkey


@pytest.fixture
def memory(valkey: Valkey) -> Memory:
    redis.Redis.from_url(valkey.url).flushall()
    return ValkeyMemory(valkey.url)


def test_it_is_known_since_when_nothing_was_sealed(memory: Memory, valkey: Valkey) -> None:
    assert memory.sealed_ago_s() == 0
    memory.mark_unsealed("acme")
    assert memory.sealed_ago_s() < 10  # nothing ever was: counted from the first look

    server, minute_ago = redis.Redis.from_url(valkey.url), time.time() - 60
    server.set("ggen:sealed:at", round(minute_ago * 1000))
    ((account, token),) = memory.take_unsealed(8, 60)
    assert 60 <= memory.sealed_ago_s() < 70  # who takes it may fail, again and again
    memory.mark_unsealed("beta")
    memory.sealed(account, token)
    assert memory.sealed_ago_s() < 10
    ((account, token),) = memory.take_unsealed(8, 60)
    memory.sealed(account, token)
    assert memory.sealed_ago_s() == 0


def test_ledgers_of_a_commit_about_many_come_last(memory: Memory) -> None:
    memory.mark_unsealed(*(f"many-{n}" for n in range(20)), is_one_of_many=True)
    memory.mark_unsealed("acme", "beta")
    assert memory.unsealed_count() == 22

    first = [account for account, _ in memory.take_unsealed(8, 60)]
    memory.mark_unsealed("gamma")
    second = [account for account, _ in memory.take_unsealed(8, 60)]

    assert {"acme", "beta"} < set(first)
    assert len(first) == 8
    assert "gamma" in second
    third = memory.take_unsealed(8, 60)
    assert len(third) == 7
    assert memory.take_unsealed(8, 60) == []
    memory.mark_unsealed("acme")  # what grows while it is sealed is sealed again
    assert [account for account, _ in memory.take_unsealed(8, 60)] == ["acme"]
