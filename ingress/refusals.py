"""Refusals, counted in Memory before they are answered; kept here while it is away (D7)."""

import asyncio
import secrets
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool

from governor.errors import OutageError
from ports import Ports


class _Refusal(NamedTuple):
    """One refusal, as ``Tallies.count`` takes it; ``era`` is Memory's when it was first counted."""

    ledger: str
    reason: str
    name: str
    refused_for: str
    era: str | None = None


class Refusals:
    """Counts each refusal once, whatever becomes of Memory meanwhile.

    Memory writes to its disk once a second, so a server that crashes forgets its last second. Until
    it says that a refusal is on its disk, the refusal is kept here too. After a
    restart of the server the ingress repeats it under the same name: Memory counts it once.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._kept: deque[_Refusal] = deque()
        self._counted: deque[_Refusal] = deque()
        self._server = ""

    async def add(
        self, ledger: str, reason: str, refused_for: str = "", *, is_deferred: bool = False
    ) -> None:
        """Count one refusal; ``refused_for`` as ``Tallies.count`` has it.

        ``is_deferred``: within a second, so that its answer waits for no thread.
        """
        self._kept.append(_Refusal(ledger, reason, secrets.token_hex(12), refused_for))
        if not is_deferred:
            await self.flush()

    async def hand_over(self) -> None:
        """Move the refusals kept here to Memory, for ever."""
        while True:
            await asyncio.sleep(1)
            await self.confirm()
            await self.flush()

    async def confirm(self) -> None:
        """Forget refusals on Memory's disk; count again those a crashed server may have lost."""
        if not self._counted:
            return
        counted, self._counted = self._counted, deque()
        try:
            server = await run_in_threadpool(self._ports.tallies.written_down)
        except OutageError:
            self._counted.extendleft(reversed(counted))
            return
        if server != self._server:
            self._server = server
            self._kept.extend(counted)
            return
        with suppress(OutageError):  # then their names end by themselves
            names = [refusal.name for refusal in counted]
            await run_in_threadpool(self._ports.tallies.forget_batches, names)

    async def flush(self) -> None:
        """Have Memory count the refusals kept here, until it takes no more."""
        while self._kept:
            refusal = self._kept.popleft()
            try:
                era = await run_in_threadpool(
                    self._ports.tallies.count, *refusal[:4], era=refusal.era
                )
            except OutageError:
                self._kept.append(refusal)  # counted again under the same name: never twice
                return
            self._counted.append(refusal._replace(era=refusal.era or era))
