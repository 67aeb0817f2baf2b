"""A network between a host and its servers that can be cut, slowed and reset.

Bytes that are held back come later, as those do that a network loses and TCP sends again.
"""

import asyncio
import random
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_CHUNK = 65536
_LOOK_EVERY_S = 0.02
_LOST_FOR_S = 1.0

Place = tuple[str, int]


class Relay:
    """Ports of the loopback interface behind which servers answer, for as long as the block lasts.

    ``ports`` has one for each server, in their order. While ``is_cut`` nothing passes. Each piece
    takes up to ``delay_s`` on its way, and a ``loss`` of them comes a second late.
    """

    def __init__(self, servers: Sequence[Place]) -> None:
        self._servers = servers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers = set[asyncio.StreamWriter]()
        self.ports: list[int] = []
        self.is_cut = False
        self.delay_s = 0.0
        self.loss = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self.ports = [self._now(self._listen(server)) for server in self._servers]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._now(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def reset(self) -> None:
        """Break every connection."""
        self._now(self._reset())

    def _now(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self, server: Place) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._join(server, reader, writer)

        listening = await asyncio.start_server(connected, "127.0.0.1", 0)
        port: int = listening.sockets[0].getsockname()[1]
        return port

    async def _join(
        self, server: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there, back = await asyncio.open_connection(*server)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_CHUNK):
                await self._on_its_way()
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _on_its_way(self) -> None:
        late_s = self.delay_s * random.random()  # noqa: S311
        if self.loss and random.random() < self.loss:  # noqa: S311
            late_s += _LOST_FOR_S
        if late_s:
            await asyncio.sleep(late_s)
        while self.is_cut:
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
