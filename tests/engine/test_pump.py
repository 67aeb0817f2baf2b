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
        for part in parts:
            part.cancel()
        await asyncio.wait(parts, timeout=5)
        await pump._redis.aclose()
    return door


def _waits(ports: Ports, account_id: str) -> int | None:
    try:
        return ports.signals.backlog(account_id)
    except OutageError:
        return None


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
