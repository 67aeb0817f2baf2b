"""The pump: plays Pub/Sub's push for the embedded signals (``python -m adapters.valkey.pump``).

Reads every tenant's stream and delivers each message to the ingress until it answers 2xx. The
back-off per message grows from 1 to 60 s. Unacknowledged messages survive this process. The pump
never drops a message: only the ingress may call one hopeless.
"""

import asyncio
import base64
import contextlib
import logging
import signal
import time
from typing import Any

import httpx
import redis
import redis.asyncio

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
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_FULL_LOOK_EVERY_S = 30.0
_ALIVE_EVERY_S = 10.0


class Pump:
    """One process; a second one would only share the work."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(
            wiring.signals_url(settings), socket_timeout=5, socket_connect_timeout=2
        )
        self._http = http
        self._endpoint = settings.push_endpoint
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._shares: dict[str, asyncio.Semaphore] = {}
        self._under_way: dict[str, set[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unacknowledged: set[str] = set()
        self._polled_at = float("-inf")

    async def deliver_new(self) -> None:
        """Deliver the new messages of every tenant's stream, for ever."""
        while True:
            accounts = [a.decode() for a in await self._redis.smembers(TOPICS)]
            accounts = [a for a in accounts if len(self._under_way.get(a, ())) < _OF_A_TENANT]
            if not accounts:
                self._polled_at = time.monotonic()
                await asyncio.sleep(_FULL_MS / 1000)
                continue
            by_key = {stream_key(a).encode(): a for a in accounts}
            try:
                read = await self._redis.xreadgroup(
                    GROUP, _CONSUMER, dict.fromkeys(by_key, ">"), count=16, block=_BLOCK_MS
                )
            except redis.ResponseError as error:
                await self._forget_ghosts(accounts, error)
                continue
            self._polled_at = time.monotonic()
            for key, messages in _pairs(read):
                for message_id, fields in messages:
                    self._start(by_key[key], message_id, fields)

    async def redeliver(self) -> None:
        """Deliver again what was not acknowledged, when its back-off is over, for ever."""
        next_full_look, full = 0.0, set[str]()
        while True:
            pushed = {a.decode() for a in await self._redis.smembers(TOPICS)}
            accounts = (full or self._unacknowledged) & pushed
            full = set()
            if time.monotonic() >= next_full_look:
                accounts = pushed
                next_full_look = time.monotonic() + _FULL_LOOK_EVERY_S
            for account_id in accounts:
                with contextlib.suppress(redis.ResponseError):  # deleted meanwhile
                    if not await self._redeliver_topic(account_id):
                        full.add(account_id)
            self._shares = {a: s for a, s in self._shares.items() if a in self._under_way}
            await asyncio.sleep(_FULL_MS / 1000 if full else _FIRST_RETRY_S)

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

    async def _redeliver_topic(self, account_id: str) -> bool:
        """Whether all that is due is under way; else the tenant's share is used up."""
        key, after = stream_key(account_id), "-"
        self._unacknowledged.discard(account_id)
        while pending := await self._redis.xpending_range(key, GROUP, after, "+", 500):
            self._unacknowledged.add(account_id)
            if not await self._redeliver_due(account_id, pending):
                return False
            after = "(" + pending[-1]["message_id"].decode()
        return True

    async def _redeliver_due(self, account_id: str, pending: list[Any]) -> bool:
        key = stream_key(account_id)
        for entry in pending:
            doublings = min(entry["times_delivered"] - 1, 10)
            rest_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**doublings)
            message_id = entry["message_id"]
            under_way = self._under_way.get(account_id, ())
            if len(under_way) >= 2 * _OF_A_TENANT:
                return False
            if message_id in under_way:
                continue
            if entry["time_since_delivered"] < rest_s * 1000:
                continue
            claimed = await self._redis.xclaim(key, GROUP, _CONSUMER, 0, [message_id])
            for claimed_id, fields in claimed:
                self._start(account_id, claimed_id, fields)
        return True

    def _start(self, account_id: str, message_id: bytes, fields: dict[bytes, bytes]) -> None:
        """Deliver as soon as a place of the tenant's share, and one of all, is free."""
        self._under_way.setdefault(account_id, set()).add(message_id)
        task = asyncio.create_task(self._deliver(account_id, message_id, fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(
        self, account_id: str, message_id: bytes, fields: dict[bytes, bytes]
    ) -> None:
        share = self._shares.setdefault(account_id, asyncio.Semaphore(_OF_A_TENANT))
        async with share, self._places:
            await self._attempt(account_id, message_id, fields)

    async def _attempt(
        self, account_id: str, message_id: bytes, fields: dict[bytes, bytes]
    ) -> None:
        try:
            if await self._is_accepted(account_id, message_id, fields):
                async with self._redis.pipeline(transaction=True) as pipe:
                    key = stream_key(account_id)
                    await pipe.xack(key, GROUP, message_id).xdel(key, message_id).execute()
            else:
                self._unacknowledged.add(account_id)
        except redis.RedisError as error:
            self._unacknowledged.add(account_id)  # accepted; the ingress knows a redelivery
            _LOG.warning("could not acknowledge a message of %s: %s", account_id, error)
        finally:
            under_way = self._under_way[account_id]
            under_way.discard(message_id)
            if not under_way:
                del self._under_way[account_id]

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
    """Pump until SIGTERM, which as process 1 of a container would else be ignored."""
    pumping = asyncio.ensure_future(run(settings))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pumping.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await pumping


if __name__ == "__main__":
    configure()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_stopped(load()))
