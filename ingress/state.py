"""What the ingress holds while it runs: ports, settings, who waits, what was refused."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import redis
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from adapters.wiring import open_notices
from config.settings import Settings
from governor.errors import DeniedError, InputError, OutageError
from ingress.failures import Failures
from ingress.refusals import Refusals
from ingress.signature import is_token
from ingress.submissions import Submissions
from ingress.tenant_keys import TenantKeys
from ports import Ports
from tasks.governors.listener import Listener

T = TypeVar("T")
_LOG = logging.getLogger("ggen.ingress")


class Waiters:
    """Who waits for the end of which run; no thread is held while waiting (D6)."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._reading: dict[str, asyncio.Task[Any]] = {}

    @contextlib.asynccontextmanager
    async def expect(self, run_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the run's end is announced from now on."""
        event = asyncio.Event()
        self._waiting[run_id].add(event)
        try:
            yield event
        finally:
            self._waiting[run_id].discard(event)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def share(self, name: str, read: Callable[[], T]) -> T:
        """What ``read`` gives, once for all who ask for ``name`` while it is being read.

        One event delivered fifty times at once is read once when it ends, not fifty times.
        """
        if name not in self._reading:
            reading = asyncio.create_task(run_in_threadpool(read))
            self._reading[name] = reading
            reading.add_done_callback(lambda _: self._reading.pop(name, None))
        shared: T = await asyncio.shield(self._reading[name])
        return shared

    async def listen(self, settings: Settings) -> None:
        """Wake who waits, for ever; while Memory is away the waiters look by themselves."""
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                async for run_id in open_notices(settings).ended_runs():
                    for event in self._waiting.get(run_id, ()):
                        event.set()
            await asyncio.sleep(0.5)


@dataclass(frozen=True, slots=True)
class State:
    """One per ingress process."""

    ports: Ports
    settings: Settings
    refusals: Refusals
    failures: Failures
    tenant_keys: TenantKeys
    listener: Listener
    signals: Submissions
    waiters: Waiters = field(default_factory=Waiters)
    _read_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _webhook_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))

    async def see_memory(self) -> None:
        """Note for ever that the ingress reaches Memory; ``silence`` infers what failed from it."""
        every_s = self.settings.health_interval_s / 2
        while True:
            with contextlib.suppress(OutageError):
                await run_in_threadpool(self.ports.watches.beat_alive, "ingress", 3 * every_s)
            await asyncio.sleep(every_s)

    async def read(self, work: Callable[..., T], *args: object) -> T:
        """Do a read in the one thread there is for reads: they never hold up the doors."""
        return await to_thread.run_sync(work, *args, limiter=self._read_threads)

    async def webhook_work(self, work: Callable[..., T], *args: object) -> T:
        """Do a webhook's blocking work in one of a few threads.

        Fifty webhooks at once would otherwise keep signals and reads waiting for their turn.
        """
        return await to_thread.run_sync(work, *args, limiter=self._webhook_threads)


def state_of(request: Request) -> State:
    """The state of the app a request came to."""
    state: State = request.app.state.ggen
    return state


Here = Annotated[State, Depends(state_of)]


async def require_token(request: Request, here: Here) -> None:
    """Reads need the API's bearer token (D22)."""
    if not is_token(request.headers.get("authorization"), here.ports.secrets.api_token()):
        refused = InputError("unauthorized", "reads need the bearer token of secrets/api.token")
        raise await here.failures.told(request, refused)


async def require_pusher(request: Request, here: State) -> None:
    """Deliveries of topics need their pusher's token (D8)."""
    try:
        await run_in_threadpool(here.ports.pushers.check, request.headers.get("authorization"))
    except (InputError, DeniedError) as error:
        raise await here.failures.told(request, error) from None
