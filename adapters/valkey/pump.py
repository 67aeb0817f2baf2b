"""The pump: plays Pub/Sub's push for the embedded signals (``python -m adapters.valkey.pump``).

Reads every tenant's stream and delivers each message to the ingress until it answers 2xx. The
back-off per message grows from 1 to 60 s. Unacknowledged messages survive this process. The pump
never drops a message: only the ingress may call one hopeless.
"""

import asyncio
import base64
import contextlib
import heapq
import logging
import random
import signal
import time
from typing import Any

import httpx
import redis
import redis.asyncio
from anyio import CapacityLimiter

from adapters import wiring
from adapters.valkey.streams import GROUP, TOPICS, stream_key
from config.logs import configure
from config.settings import Settings, load
from governor.errors import OutageError
from governor.health import ALIVE_FOR_S
from governor.paths import topic_name

_LOG = logging.getLogger("ggen.pump")
_CONSUMER = "pump"
_AT_ONCE, _OF_A_TENANT = 64, 16
"""How many deliveries are under way, and of one tenant: who floods does not hold up the others."""

_BLOCK_MS, _FULL_MS = 500, 20
_MOST_APART_S, _WEIGHT = 0.1, 0.2
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_FULL_LOOK_EVERY_S, _LOOK_EVERY_S = 30.0, 0.05
_ALIVE_EVERY_S = 10.0


class _Share:
    """How many deliveries of one tenant may be under way: half as many after a refusal.

    As Pub/Sub does: the ingress spends little on refusing a tenant whose limit is reached. After a
    refusal none begins for an eighth of the time between two acceptances.
    """

    def __init__(self) -> None:
        self.room = CapacityLimiter(_OF_A_TENANT)
        self._rests_until_s = self._accepted_s = 0.0
        self._every_s = _MOST_APART_S

    async def rest(self) -> None:
        """Wait, where one was refused just now."""
        await asyncio.sleep(max(0.0, self._rests_until_s - time.monotonic()))

    def learn(self, *, is_accepted: bool) -> None:
        """Take more at once, or fewer, after one was answered."""
        width, now_s = int(self.room.total_tokens), time.monotonic()
        if is_accepted:
            apart_s = min(now_s - self._accepted_s, _MOST_APART_S)
            self._every_s += _WEIGHT * (apart_s - self._every_s)
            self._accepted_s = now_s
            self.room.total_tokens = min(_OF_A_TENANT, width + 1)
        elif now_s >= self._rests_until_s:  # what was refused together counts once
            self.room.total_tokens = max(1, width // 2)
            self._rests_until_s = now_s + self._every_s / 8


class Pump:
    """One process; a second one would only share the work."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(
            wiring.signals_url(settings), socket_timeout=5, socket_connect_timeout=2
        )
        self._http = http
        self._endpoint = settings.push_endpoint
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._shares: dict[str, _Share] = {}
        self._under_way: dict[str, set[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: dict[str, list[tuple[float, bytes, int]]] = {}
        self._polled_at = float("-inf")

    async def deliver_new(self) -> None:
        """Deliver the new messages of every tenant's stream, for ever."""
        while True:
            accounts = [a.decode() for a in await self._redis.smembers(TOPICS)]
            free = [a for a in accounts if len(self._under_way.get(a, ())) < _OF_A_TENANT]
            block_ms = _BLOCK_MS if len(free) == len(accounts) else _FULL_MS
            if not free:
                self._polled_at = time.monotonic()
                await asyncio.sleep(block_ms / 1000)
                continue
            by_key = {stream_key(a).encode(): a for a in free}
            try:
                read = await self._redis.xreadgroup(
                    GROUP, _CONSUMER, dict.fromkeys(by_key, ">"), count=16, block=block_ms
                )
            except redis.ResponseError as error:
                await self._forget_ghosts(free, error)
                continue
            self._polled_at = time.monotonic()
            for key, messages in _pairs(read):
                for message_id, fields in messages:
                    self._start(by_key[key], message_id, fields)

    async def redeliver(self) -> None:
        """Deliver again what was not acknowledged, when its back-off is over, for ever."""
        next_full_look = 0.0
        while True:
            if time.monotonic() >= next_full_look:
                next_full_look = time.monotonic() + _FULL_LOOK_EVERY_S
                for account in await self._redis.smembers(TOPICS):
                    with contextlib.suppress(redis.ResponseError):  # deleted meanwhile
                        await self._find_resting(account.decode())
            for account_id in list(self._resting):
                await self._redeliver_due(account_id)
            busy = self._under_way.keys() | self._resting.keys()
            self._shares = {a: share for a, share in self._shares.items() if a in busy}
            await asyncio.sleep(_LOOK_EVERY_S)

    async def prove_alive(self) -> None:
        """Tell Memory that the pump polls, for ever."""
        watches = wiring.ports().watches
        while True:
            if time.monotonic() - self._polled_at < _ALIVE_EVERY_S:
                with contextlib.suppress(OutageError):
                    await asyncio.to_thread(watches.beat_alive, "pump", ALIVE_FOR_S)
                await asyncio.sleep(_ALIVE_EVERY_S)
            else:
                await asyncio.sleep(_BLOCK_MS / 1000)

    async def _forget_ghosts(self, accounts: list[str], error: Exception) -> None:
        """One topic without its stream would keep every other one from being read."""
        for account_id in accounts:
            if not await self._redis.exists(stream_key(account_id)):
                _LOG.warning("the topic of %s has no stream any more: %s", account_id, error)
                await self._redis.srem(TOPICS, account_id)
        await asyncio.sleep(_BLOCK_MS / 1000)

    async def _find_resting(self, account_id: str) -> None:
        """Learn of unacknowledged messages that this process did not deliver itself."""
        key, after = stream_key(account_id), "-"
        while pending := await self._redis.xpending_range(key, GROUP, after, "+", 500):
            now_s = time.monotonic()
            known = {each[1] for each in self._resting.get(account_id, ())}
            known |= self._under_way.get(account_id, set())
            for entry in pending:
                if entry["message_id"] not in known:
                    tries = entry["times_delivered"]
                    rested_s = entry["time_since_delivered"] / 1000
                    self._rest(account_id, entry["message_id"], tries, now_s - rested_s)
            after = "(" + pending[-1]["message_id"].decode()

    def _rest(self, account_id: str, message_id: bytes, tries: int, since_s: float) -> None:
        """Have a message delivered again after its back-off; messages spread by themselves."""
        rest_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(tries - 1, 10))
        due_s = since_s + rest_s * random.uniform(0.75, 1)  # noqa: S311  # no secret
        heapq.heappush(self._resting.setdefault(account_id, []), (due_s, message_id, tries))

    async def _redeliver_due(self, account_id: str) -> None:
        """Begin as many as the tenant's share has room for."""
        resting, due = self._resting[account_id], dict[bytes, int]()
        room = _OF_A_TENANT - len(self._under_way.get(account_id, ()))
        while resting and len(due) < room and resting[0][0] <= time.monotonic():
            _, message_id, tries = heapq.heappop(resting)
            if message_id not in self._under_way.get(account_id, ()):
                due[message_id] = tries
        if not resting:
            del self._resting[account_id]
        if not due:
            return
        if not await self._redis.sismember(TOPICS, account_id):
            self._resting.pop(account_id, None)  # nothing pushes this topic any more
            return
        try:
            claimed = await self._redis.xclaim(
                stream_key(account_id), GROUP, _CONSUMER, 0, list(due)
            )
        except redis.ResponseError:  # deleted meanwhile
            return
        for message_id, fields in claimed:
            self._start(account_id, message_id, fields, due[message_id] + 1)

    def _start(
        self, account_id: str, message_id: bytes, fields: dict[bytes, bytes], tries: int = 1
    ) -> None:
        """Deliver as soon as a place of the tenant's share, and one of all, is free."""
        self._under_way.setdefault(account_id, set()).add(message_id)
        task = asyncio.create_task(self._deliver(account_id, message_id, fields, tries))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(
        self, account_id: str, message_id: bytes, fields: dict[bytes, bytes], tries: int
    ) -> None:
        share = self._shares.setdefault(account_id, _Share())
        async with share.room:
            await share.rest()
            async with self._places:
                await self._attempt(account_id, message_id, fields, tries, share)

    async def _attempt(
        self,
        account_id: str,
        message_id: bytes,
        fields: dict[bytes, bytes],
        tries: int,
        share: _Share,
    ) -> None:
        try:
            is_accepted = await self._is_accepted(account_id, message_id, fields)
            share.learn(is_accepted=is_accepted)
            if is_accepted:
                async with self._redis.pipeline(transaction=True) as pipe:
                    key = stream_key(account_id)
                    await pipe.xack(key, GROUP, message_id).xdel(key, message_id).execute()
            else:
                self._rest(account_id, message_id, tries, time.monotonic())
        except redis.RedisError as error:  # accepted; the ingress knows a redelivery
            self._rest(account_id, message_id, tries, time.monotonic())
            _LOG.warning("could not acknowledge a message of %s: %s", account_id, error)
        finally:
            under_way = self._under_way.get(account_id, set())
            under_way.discard(message_id)
            if not under_way:
                self._under_way.pop(account_id, None)

    async def _is_accepted(
        self, account_id: str, message_id: bytes, fields: dict[bytes, bytes]
    ) -> bool:
        envelope = {
            "message": {
                "data": base64.b64encode(fields.get(b"data", b"")).decode(),
                "messageId": message_id.decode(),
                "attributes": {},
            },
            "subscription": f"projects/embedded/subscriptions/{topic_name(account_id)}",
        }
        try:
            token = wiring.ports().secrets.push_token()
            answer = await self._http.post(
                self._endpoint, json=envelope, headers={"Authorization": f"Bearer {token}"}
            )
        except (httpx.HTTPError, OutageError) as error:
            _LOG.info("the ingress does not answer: %s", type(error).__name__)
            return False
        return answer.is_success


async def run(settings: Settings) -> None:
    """Pump until cancelled; a lost Valkey is waited for."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        pump = Pump(settings, http)
        await asyncio.gather(
            *(_for_ever(part) for part in (pump.deliver_new, pump.redeliver, pump.prove_alive))
        )


async def _for_ever(part: Any) -> None:
    while True:
        try:
            await part()
        except (redis.RedisError, OSError) as error:
            _LOG.warning("Valkey does not answer (%s); trying again", type(error).__name__)
            await asyncio.sleep(1)
        except Exception:  # one message must never keep all the others
            _LOG.exception("the pump stumbled; going on")
            await asyncio.sleep(1)


def _pairs(read: Any) -> Any:
    return read.items() if isinstance(read, dict) else read or ()


async def _until_stopped(settings: Settings) -> None:
    """Pump until SIGTERM, which as process 1 of a container would else be ignored.

    It is cancelled until it ends: a read that ends in the same moment can swallow a cancellation.
    """
    pumping, stopped = asyncio.ensure_future(run(settings)), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait([pumping, stopping], return_when=asyncio.FIRST_COMPLETED)
    while not pumping.done():
        pumping.cancel()
        await asyncio.wait([pumping], timeout=1)
    stopping.cancel()
    if not pumping.cancelled():
        pumping.result()


if __name__ == "__main__":
    configure()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_stopped(load()))
