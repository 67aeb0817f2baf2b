"""Memory on Valkey (or Redis): every verb one command, one transaction or one script.

Each verb may be repeated safely, so one lost connection is retried at once (a restarted server);
a call is bounded to ``TIMEOUT_S``.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from governor.errors import OutageError
from governor.quota import Verdict
from ports.memory import Admission, Request, Slot, Terms

TIMEOUT_S = 1.0
SEEN_FOR_S = 3600
"""How long an admission's answer is remembered here; Documents remember it for ever."""

_LEASE, _MODE, _DEADLINES, _TALLY = "ggen:lease", "ggen:mode", "ggen:deadlines", "ggen:tally"
_WINDOWS, _ENDED = "ggen:tally:windows", "ggen:ended-runs"
_UNSEALED, _SEALING = "ggen:unsealed", "ggen:sealing"
_ADMIT = files("adapters").joinpath("admission.lua").read_text()
_KEEP = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2], ARGV[1])"""
_RELEASE = """
local held = redis.call('SREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('SREM', KEYS[3], ARGV[1])
if ARGV[3] == '' then return end
local month = redis.call('HGET', KEYS[4], 'month') or ARGV[3]
if held == 1 then redis.call('DECR', 'ggen:used:' .. ARGV[4] .. '/' .. month) end
redis.call('DEL', KEYS[4])"""
_OVERDUE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
return redis.call('ZRANGE', KEYS[1], 0, now, 'BYSCORE', 'LIMIT', 0, ARGV[1])"""
_COUNT = """
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', 120) then
  redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
end"""
_FREEZE = """
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('RENAMENX', KEYS[1], KEYS[2]) == 1 then
  redis.call('SADD', KEYS[3], ARGV[1])
end
return redis.call('SMEMBERS', KEYS[3])"""
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local given_up = redis.call('ZRANGE', KEYS[2], 0, now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
local marked = redis.call('SPOP', KEYS[1], ARGV[1] - #given_up)
local held = now + ARGV[2] * 1000
for _, account in ipairs(marked) do given_up[#given_up + 1] = account end
for _, account in ipairs(given_up) do redis.call('ZADD', KEYS[2], held, account) end
return {given_up, string.format('%d', held)}"""
_DROP = """
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if held and tonumber(held) == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end"""

T = TypeVar("T")


def client(url: str, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """A connection pool that fails in bounded time and retries one lost connection."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def bounded(call: Callable[[], T]) -> T:
    """Run one exchange with Valkey; whatever keeps it from answering is an OutageError."""
    try:
        return call()
    except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError) as error:
        detail = f"Valkey does not answer: {type(error).__name__}"
        raise OutageError("memory-unavailable", detail, retry_after_s=2) from error
    except redis.RedisError as error:
        raise OutageError("memory-unavailable", f"Valkey refused: {error}", 2) from error


class Connected:
    """A client opened on first use, anew in a forked child."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._held: tuple[int, Any] | None = None

    @property
    def _redis(self) -> Any:
        if self._held is None or self._held[0] != os.getpid():
            self._held = (os.getpid(), client(self._url))
        return self._held[1]

    def close(self) -> None:
        """Let go of every connection of this process."""
        if self._held and self._held[0] == os.getpid():
            self._held[1].close()
        self._held = None


class ValkeyMemory(Connected):
    """See ``ports.memory.Memory`` for what it promises."""

    # -- Slots

    def admit(self, request: Request) -> Admission:
        keys = [_LEASE, _MODE, _governor(request.account_id), _DEADLINES,
                f"ggen:seen:{request.action_id}"]  # fmt: skip
        values = [request.account_id, request.action_id, request.signal_type, request.sku_id or "",
                  request.signal_sha256, request.month, request.queue_timeout_ms,
                  SEEN_FOR_S]  # fmt: skip
        verdict, *terms = self._script(_ADMIT, keys, values)
        return Admission(Verdict(verdict), *terms)

    def keep(self, slot: Slot, deadline_in_ms: int) -> None:
        self._script(_KEEP, [_DEADLINES], [_member(slot), deadline_in_ms])

    def release(self, slot: Slot, *, refund_month: str | None = None) -> None:
        keys = [_inflight(slot.account_id, slot.sku_id), _DEADLINES, _rolling(slot.account_id),
                f"ggen:seen:{slot.action_id}"]  # fmt: skip
        entitlement = f"{slot.account_id}/{slot.sku_id}"
        self._script(
            _RELEASE, keys, [slot.action_id, _member(slot), refund_month or "", entitlement]
        )

    def overdue(self, limit: int) -> list[Slot]:
        return [Slot(*m.split("/")) for m in self._script(_OVERDUE, [_DEADLINES], [limit])]

    def set_rolling_back(self, slot: Slot, rolling: bool) -> None:
        change = self._redis.sadd if rolling else self._redis.srem
        bounded(lambda: change(_rolling(slot.account_id), slot.action_id))

    # -- Governors

    def boot(self, account_id: str, state: str, terms: Sequence[Terms]) -> None:
        fields: dict[str, str | int] = {"state": state}
        for term in terms:
            fields |= {
                f"{term.sku_id}:plan": term.plan_type,
                f"{term.sku_id}:version": term.policy_version,
                f"{term.sku_id}:concurrent": term.concurrent_actions,
                f"{term.sku_id}:monthly": term.monthly_actions,
            }
            for signal_type in term.signal_types:
                key = f"route:{signal_type}"
                fields[key] = f"{fields.get(key, '')} {term.sku_id}".strip()

        def replace() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(_governor(account_id)).hset(_governor(account_id), mapping=fields)
                pipe.execute()

        bounded(replace)

    def forget(self, account_id: str) -> None:
        bounded(lambda: self._redis.delete(_governor(account_id)))

    def in_flight(self, account_id: str, sku_ids: Sequence[str]) -> int:
        keys = [_inflight(account_id, sku_id) for sku_id in sku_ids]
        return sum(bounded(lambda: [self._redis.scard(key) for key in keys]))

    def used(self, account_id: str, sku_id: str, month: str) -> int:
        return int(bounded(lambda: self._redis.get(_used(account_id, sku_id, month))) or 0)

    def rolling_back(self, account_id: str) -> int:
        return int(bounded(lambda: self._redis.scard(_rolling(account_id))))

    def restore(self, slots: Sequence[Slot], used: Mapping[tuple[str, str, str], int]) -> None:
        def write() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                for slot in slots:
                    pipe.sadd(_inflight(slot.account_id, slot.sku_id), slot.action_id)
                    pipe.zadd(_DEADLINES, {_member(slot): 0})
                for key, count in used.items():
                    pipe.set(_used(*key), count, ex=5_529_600)
                pipe.execute()

        bounded(write)

    # -- Lease

    def extend_lease(self, seconds: int) -> bool:
        return bool(bounded(lambda: self._redis.set(_LEASE, "1", ex=seconds, xx=True)))

    def create_lease(self, seconds: int) -> None:
        bounded(lambda: self._redis.set(_LEASE, "1", ex=seconds))

    def lease_left_s(self) -> float:
        return float(max(0, bounded(lambda: self._redis.pttl(_LEASE)))) / 1000

    def claim_tick(self, name: str, seconds: float) -> bool:
        ms = max(1, int(seconds * 1000))
        return bool(bounded(lambda: self._redis.set(f"ggen:tick:{name}", "1", px=ms, nx=True)))

    def beat_alive(self, component: str, seconds: int) -> None:
        bounded(lambda: self._redis.set(f"ggen:alive:{component}", "1", ex=seconds))

    def alive(self, components: Sequence[str]) -> dict[str, bool]:
        found = bounded(lambda: self._redis.mget([f"ggen:alive:{c}" for c in components]))
        return {c: value is not None for c, value in zip(components, found, strict=True)}

    # -- Tallies

    def count(self, ledger: str, reason: str, batch: str) -> None:
        self._script(_COUNT, [_TALLY, f"ggen:batch:{batch}"], [f"{ledger} {reason}"])

    def take_counts(self, window: str) -> dict[str, dict[str, dict[str, int]]]:
        windows = self._script(_FREEZE, [_TALLY, f"{_TALLY}:{window}", _WINDOWS], [window])
        return {w: self._frozen(w) for w in sorted(windows)}

    def drop_counts(self, window: str) -> None:
        def drop() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(f"{_TALLY}:{window}").srem(_WINDOWS, window).execute()

        bounded(drop)

    # -- Notices

    # -- Unsealed

    def mark_unsealed(self, account_id: str) -> None:
        bounded(lambda: self._redis.sadd(_UNSEALED, account_id))

    def take_unsealed(self, limit: int, hold_s: int) -> list[tuple[str, str]]:
        accounts, token = self._script(_TAKE, [_UNSEALED, _SEALING], [limit, hold_s])
        return [(account, token) for account in accounts]

    def sealed(self, account_id: str, token: str) -> None:
        self._script(_DROP, [_SEALING], [account_id, token])

    def unsealed_count(self) -> int:
        return int(bounded(lambda: self._redis.scard(_UNSEALED) + self._redis.zcard(_SEALING)))

    def announce(self, run_id: str) -> None:
        bounded(lambda: self._redis.publish(_ENDED, run_id))

    def _frozen(self, window: str) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for field, n in bounded(lambda: self._redis.hgetall(f"{_TALLY}:{window}")).items():
            ledger, _, reason = field.partition(" ")
            counts.setdefault(ledger, {})[reason] = int(n)
        return counts

    def _script(self, text: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
        connection = self._redis
        return bounded(lambda: connection.register_script(text)(keys=keys, args=values))


class ValkeyNotices:
    """See ``ports.memory.Notices`` for what it promises."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ended_runs(self) -> AsyncIterator[str]:
        connection = redis.asyncio.Redis.from_url(
            self._url, decode_responses=True, health_check_interval=10, socket_connect_timeout=2
        )
        async with connection, connection.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(_ENDED)
            async for message in subscription.listen():
                yield message["data"]


def _governor(account_id: str) -> str:
    return f"ggen:governor:{account_id}"


def _inflight(account_id: str, sku_id: str) -> str:
    return f"ggen:inflight:{account_id}/{sku_id}"


def _rolling(account_id: str) -> str:
    return f"ggen:rolling:{account_id}"


def _used(account_id: str, sku_id: str, month: str) -> str:
    return f"ggen:used:{account_id}/{sku_id}/{month}"


def _member(slot: Slot) -> str:
    return f"{slot.account_id}/{slot.sku_id}/{slot.action_id}"
