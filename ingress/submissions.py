"""Signals of one tenant that wait at the same time are submitted together, in a thread of its own.

So a tenant that floods the ingress waits behind itself, and its signals cost less.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from anyio import CapacityLimiter, to_thread

from governor.errors import OutageError
from tasks.actions.admit import Signal
from tasks.actions.storing import Answer

_THREADS = 40
"""Threads for all signals."""

_UNBOUNDED = CapacityLimiter(inf)
"""For work whose thread was counted before."""


class Share(NamedTuple):
    """How much of the ingress one tenant has.

    So many threads work for it at a time, each takes so many signals at once, and rests for so many
    times as long as that took, where more wait.
    """

    threads: int
    together: int
    rests: float


ON_SQLITE, ON_FIRESTORE = Share(1, 8, 2), Share(16, 1, 0)
"""On SQLite many commits cost little more than one, and a flood takes the interpreter and the write
lock from others (figures: docs/performance.md). On Firestore threads mostly wait."""

_RESTS_S = 0.05
"""The longest rest: where a store is slow it takes nothing from others."""


@dataclass(slots=True, eq=False)
class _Waiting:
    asked: Signal
    answer: asyncio.Future[str]
    gives_up: asyncio.TimerHandle


@dataclass(slots=True)
class _Tenant:
    waiting: deque[_Waiting] = field(default_factory=deque)
    at_work: int = 0

    def take(self, most: int) -> list[_Waiting]:
        """Those whose turn it is, without those that have given up."""
        turn: list[_Waiting] = []
        while self.waiting and len(turn) < most:
            each = self.waiting.popleft()
            each.gives_up.cancel()
            if not each.answer.done():
                turn.append(each)
        return turn


class Submissions:
    """The way of all signals of an ingress into ``submit_all``.

    None waits for longer than ``patience_s``: beyond what the machine can do, more is refused, so
    that what is accepted is accepted soon.
    """

    def __init__(
        self,
        submit_all: Callable[[Sequence[Signal]], Sequence[Answer]],
        store_name: str,
        patience_s: float = 1.0,
    ) -> None:
        self._submit_all, self._patience_s = submit_all, patience_s
        self._share = ON_SQLITE if store_name == "sqlite" else ON_FIRESTORE
        self._tenants: dict[str, _Tenant] = {}
        self._all = CapacityLimiter(_THREADS)
        self._working: set[asyncio.Task[None]] = set()

    async def submit(self, asked: Signal) -> str:
        """The id of a signal's action.

        Raises:
            OutageError: ``busy``: no thread came free in time. Nothing was done.
            what ``tasks.actions.admit.submit`` raises.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        gives_up = loop.call_later(self._patience_s, _refuse, answer)
        tenant = self._tenants.setdefault(asked.account_id, _Tenant())
        tenant.waiting.append(_Waiting(asked, answer, gives_up))
        if tenant.at_work < self._share.threads:
            tenant.at_work += 1
            working = loop.create_task(self._work(asked.account_id, tenant))
            self._working.add(working)
            working.add_done_callback(self._working.discard)
        return await answer

    async def _work(self, account_id: str, tenant: _Tenant) -> None:
        """Submit what waits of a tenant, turn by turn."""
        try:
            while tenant.waiting:
                async with self._all:
                    began_s = time.monotonic()
                    await self._carry_out(tenant.take(self._share.together))
                    took_s = time.monotonic() - began_s
                if tenant.waiting:
                    await asyncio.sleep(min(self._share.rests * took_s, _RESTS_S))
        finally:
            tenant.at_work -= 1
            if not tenant.at_work and not tenant.waiting:
                self._tenants.pop(account_id, None)

    async def _carry_out(self, turn: Sequence[_Waiting]) -> None:
        if not turn:
            return  # all have given up
        signals = [each.asked for each in turn]
        try:
            answers = await to_thread.run_sync(self._answers, signals, limiter=_UNBOUNDED)
            for each, answer in zip(turn, answers, strict=True):
                if each.answer.done():
                    continue  # its client has gone
                if isinstance(answer, Exception):
                    each.answer.set_exception(answer)
                else:
                    each.answer.set_result(answer)
        except Exception as error:  # no thread, no memory: each has an answer all the same
            for each in turn:
                if not each.answer.done():
                    each.answer.set_exception(error)

    def _answers(self, signals: Sequence[Signal]) -> Sequence[str | Exception]:
        try:
            return self._submit_all(signals)
        except OutageError as error:
            return [OutageError(*error.args) for _ in signals]
        except Exception as error:  # of one of them: the others are submitted without it
            if len(signals) == 1:
                return [error]
            return [self._answers([each])[0] for each in signals]


def _refuse(answer: asyncio.Future[str]) -> None:
    if not answer.done():
        detail = "more signals come than this ingress can take; send it again"
        answer.set_exception(OutageError("busy", detail, 1))
