"""Refusals as the ingress counts them: once, whatever becomes of Memory meanwhile."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from adapters.valkey import connection as valkey_connection
from adapters.valkey.memory import ValkeyMemory
from governor.errors import OutageError
from ingress.refusals import Refusals
from tests.conftest import Valkey


class FewPorts:
    """Memory alone: it is all that counting needs."""

    def __init__(self, memory: Any) -> None:
        self.tallies = memory


@pytest.fixture
def memory(valkey: Valkey) -> Iterator[ValkeyMemory]:
    redis.Redis.from_url(valkey.url).flushdb()
    opened = ValkeyMemory(valkey.url)
    yield opened
    opened.close()


def counted(memory: ValkeyMemory) -> int:
    return sum(sum(r.values()) for ls in memory.take_counts("w").values() for r in ls.values())


async def _a_second_later(refusals: Refusals) -> None:
    await refusals.confirm()
    await refusals.flush()


def test_what_memory_lost_of_the_last_second_is_told_again(
    memory: ValkeyMemory, valkey: Valkey
) -> None:
    refusals = Refusals(FewPorts(memory))  # type: ignore[arg-type]

    async def play() -> None:
        for _ in range(5):
            await refusals.add("signals_refused:acme", "degraded")
        redis.Redis.from_url(valkey.url).flushdb()
        await refusals.add("signals_refused:acme", "degraded")
        await _a_second_later(refusals)
        await _a_second_later(refusals)

    asyncio.run(play())

    assert counted(memory) == 6


def test_a_refusals_name_is_known_for_as_long_as_it_may_be_told_again(
    memory: ValkeyMemory, valkey: Valkey
) -> None:
    refusals = Refusals(FewPorts(memory))  # type: ignore[arg-type]
    server = redis.Redis.from_url(valkey.url)

    async def play() -> None:
        await refusals.add("signals_refused:acme", "degraded")
        (name,) = server.keys("ggen:batch:*")
        assert server.ttl(name) > 12 * 3600  # however long Memory is away meanwhile
        await _a_second_later(refusals)
        await _a_second_later(refusals)

    asyncio.run(play())

    assert not server.keys("ggen:batch:*")
    assert counted(memory) == 1


def test_what_was_receipted_before_memory_was_lost_as_a_whole_is_not_counted_again(
    memory: ValkeyMemory, valkey: Valkey
) -> None:
    refusals = Refusals(FewPorts(memory))  # type: ignore[arg-type]

    async def play() -> None:
        era = memory.begin_rebuild(5)
        assert era
        assert memory.create_lease(5, era, "2026-01-01T00:00:00.000000Z")
        await refusals.add("signals_refused:acme", "quota-exceeded")
        assert counted(memory) == 1
        redis.Redis.from_url(valkey.url).flushdb()
        await _a_second_later(refusals)

    asyncio.run(play())

    assert counted(memory) == 0


def test_what_was_taken_to_be_receipted_is_known_to_a_server_that_dies_then(
    memory: ValkeyMemory, valkey: Valkey
) -> None:
    refusals = Refusals(FewPorts(memory))  # type: ignore[arg-type]

    async def play() -> None:
        await refusals.add("signals_refused:acme", "quota-exceeded")
        taken = memory.take_counts("w")
        valkey.kill()
        valkey.start()
        await _a_second_later(refusals)
        assert memory.take_counts("later") == taken

    asyncio.run(play())


def test_a_server_that_never_waits_for_its_disk_has_its_refusals_receipted_too(
    memory: ValkeyMemory, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_connection, "_ON_DISK_WITHIN_S", 0.1)
    client = redis.Redis.from_url(valkey.url)
    client.config_set("appendfsync", "no")
    try:
        memory.count("signals_refused:acme", "quota-exceeded", "b")

        assert counted(memory) == 1
        assert memory.written_down() == client.info("server")["run_id"]
    finally:
        client.config_set("appendfsync", "everysec")


def test_what_was_kept_while_memory_was_away_is_counted_once(memory: ValkeyMemory) -> None:
    class Flaky:
        away = True
        written_down = memory.written_down
        forget_batches = memory.forget_batches

        def count(self, *refusal: str, era: str | None) -> str:
            if self.away:
                raise OutageError("memory-unavailable", "Valkey does not answer")
            return memory.count(*refusal, era=era)

    flaky = Flaky()
    refusals = Refusals(FewPorts(flaky))  # type: ignore[arg-type]

    async def play() -> None:
        for _ in range(3):
            await refusals.add("signals_refused:acme", "memory-unavailable", "acme")
        flaky.away = False
        await refusals.flush()
        await _a_second_later(refusals)

    asyncio.run(play())

    assert counted(memory) == 3
