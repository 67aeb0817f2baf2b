"""The pump: of one tenant it has at most sixteen deliveries under way, whatever that one sends."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.local.secret_files import SecretFiles
from adapters.valkey.pump import Pump
from config.settings import Settings, load
from governor.errors import OutageError
from ports import Ports
from tests.conftest import Valkey


class Door:
    """Takes the messages of ``quiet`` at once, and those of ``loud`` when it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.taken: list[str] = []
        self.under_way = self.most = 0

    async def take(self, request: Request) -> Response:
        name = json.loads(await request.body())["subscription"].split(".")[1]
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if name == "loud":
            await self.opened.wait()
        self.under_way -= 1
        self.taken.append(name)
        return Response(status_code=204)


def test_who_floods_its_topic_waits_behind_itself_and_loses_nothing(
    ports: Ports, valkey: Valkey, tmp_path: Path
) -> None:
    SecretFiles(load().secrets_dir).create_missing()
    settings = Settings(state_dir=tmp_path, signals_url=valkey.url, memory_url=valkey.url)
    for account_id, count in (("loud", 200), ("quiet", 20)):
        ports.signals.create(account_id, "europe-west1")
        for number in range(count):
            ports.signals.publish(account_id, b"%d" % number)

    door = asyncio.run(_pumped(settings, ports))

    assert door.most <= 16 + 16
    assert door.taken[:20] == ["quiet"] * 20
    assert len(door.taken) == 220


class Narrow:
    """Two places, from the hundredth on sixteen, each held for 20 ms; what finds none is refused."""

    def __init__(self) -> None:
        self.held = self.most = self.taken = self.refused = 0

    async def take(self, _request: Request) -> Response:
        if self.held == (2 if self.taken < 100 else 16):
            self.refused += self.taken < 100
            return Response(status_code=429)
        self.held += 1
        self.taken += 1
        self.most = max(self.most, self.held)
        asyncio.get_running_loop().call_later(0.02, self._free)
        return Response(status_code=204)

    def _free(self) -> None:
        self.held -= 1


def test_a_tenant_at_its_limit_is_pushed_less_and_more_again_when_it_has_room(
    ports: Ports, valkey: Valkey, tmp_path: Path
) -> None:
    SecretFiles(load().secrets_dir).create_missing()
    settings = Settings(state_dir=tmp_path, signals_url=valkey.url, memory_url=valkey.url)
    ports.signals.create("loud", "europe-west1")
    for number in range(300):
        ports.signals.publish("loud", b"%d" % number)
    door = Narrow()

    asyncio.run(_narrowed(settings, ports, door))

    assert door.taken == 300
    assert door.refused < 550, "with sixteen at once, always, it was 744"
    assert door.most > 8


async def _narrowed(settings: Settings, ports: Ports, door: Narrow) -> None:
    app = Starlette(routes=[Route("/v1/pubsub/signals", door.take, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        pump = Pump(settings, http)
        parts = [asyncio.create_task(part()) for part in (pump.deliver_new, pump.redeliver)]
        await _until(lambda: _waits(ports, "loud") == 0)
        await _ended(parts)
        await pump._redis.aclose()


async def _pumped(settings: Settings, ports: Ports) -> Door:
    door = Door()
    app = Starlette(routes=[Route("/v1/pubsub/signals", door.take, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        pump = Pump(settings, http)
        parts = [asyncio.create_task(part()) for part in (pump.deliver_new, pump.redeliver)]
        await _until(lambda: len(door.taken) >= 20)
        assert _waits(ports, "loud") == 200
        door.opened.set()
        await _until(lambda: _waits(ports, "loud") == 0 and _waits(ports, "quiet") == 0)
        await _ended(parts)
        await pump._redis.aclose()
    return door


async def _ended(parts: "list[asyncio.Task[None]]") -> None:
    """Cancelled until they end, as the program is: a read can swallow a cancellation."""
    while not all(part.done() for part in parts):
        for part in parts:
            part.cancel()
        await asyncio.wait(parts, timeout=1)
    await asyncio.gather(*parts, return_exceptions=True)


def _waits(ports: Ports, account_id: str) -> int | None:
    try:
        return ports.signals.backlog(account_id)
    except OutageError:
        return None


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
