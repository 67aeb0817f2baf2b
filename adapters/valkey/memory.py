"""Memory on Valkey (or Redis): every verb one command, one transaction or one script."""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

import redis.asyncio

from adapters.valkey.broadcasts import ValkeyBroadcasts
from adapters.valkey.connection import bounded
from adapters.valkey.health import ValkeyHealth
from adapters.valkey.loads import ValkeyLoads
from adapters.valkey.measures import ValkeyMeasures
from adapters.valkey.outbox import ValkeyOutbox
from adapters.valkey.slots import (
    ERA,
    UNSEALED,
    USED_FOR_S,
    governor_key,
    inflight_key,
    rolling_key,
    used_key,
)
from adapters.valkey.troubles import ValkeyTroubles
from ports.memory import Terms

_TALLY, _WINDOWS, _ENDED = "ggen:tally", "ggen:tally:windows", "ggen:ended-runs"
_SEALING, _UNSEALED_MANY = "ggen:sealing", "ggen:unsealed:many"
_SEALED_AT = "ggen:sealed:at"
_NAME_FOR_S = 24 * 3600
"""How long a refusal's name is known where the ingress that counted it died."""
_COUNT = f"""
local era = redis.call('GET', KEYS[3]) or ''
if ARGV[3] == 'again' and era ~= ARGV[4] then return era end  -- all was lost, and may be receipted
if not redis.call('SET', KEYS[2], 1, 'NX', 'EX', {_NAME_FOR_S}) then return era end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
if ARGV[2] == '' then return era end
local is_drilled = redis.call('SISMEMBER', 'ggen:drilled', ARGV[2]) == 1
  and redis.call('EXISTS', 'ggen:drill') + redis.call('HEXISTS', 'ggen:health:some', 'outage') > 0
local scope = is_drilled and 'some' or 'all'
redis.call('HINCRBY', 'ggen:refused:' .. scope, ARGV[2], 1)
return era"""
_FREEZE = """
redis.call('SET', KEYS[4], ARGV[1])  -- WAITAOF waits for what its own connection has written
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('RENAMENX', KEYS[1], KEYS[2]) == 1 then
  redis.call('SADD', KEYS[3], ARGV[1])
end
return redis.call('SMEMBERS', KEYS[3])"""
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local given_up = redis.call('ZRANGE', KEYS[2], 0, now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
local held = now + ARGV[2] * 1000
-- Held for longer than anybody holds: by a clock that was set back since.
for _, account in ipairs(redis.call(
  'ZRANGE', KEYS[2], '(' .. held, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1] - #given_up)) do
  given_up[#given_up + 1] = account
end
local marked = redis.call('SPOP', KEYS[1], ARGV[1] - #given_up)
for _, account in ipairs(marked) do given_up[#given_up + 1] = account end
-- Those of a commit about many come last: no caller waits for them, and there may be thousands.
local many = redis.call('SPOP', KEYS[3], ARGV[1] - #given_up)
for _, account in ipairs(many) do given_up[#given_up + 1] = account end
for _, account in ipairs(given_up) do redis.call('ZADD', KEYS[2], held, account) end
return {given_up, string.format('%d', held)}"""
_SEALED_AGO = """
if redis.call('SCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2]) + redis.call('SCARD', KEYS[3]) == 0
then return '0' end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('SET', KEYS[4], now, 'NX')  -- none was sealed since Memory was lost
return string.format('%d', math.max(0, now - redis.call('GET', KEYS[4])))"""
_DROP = """
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
if held and tonumber(held) == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
local t = redis.call('TIME')
redis.call('SET', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000))"""

_BOOTS = "ggen:boots"
_FORGOTTEN_FOR_S = 24 * 3600
"""How long a boot that began before a governor was forgotten is known as such."""

_TICKET = """
if redis.call('HGET', KEYS[1], 'server') ~= ARGV[2] then  -- all was lost, or its last second
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'server', ARGV[2],
    'at', t[1] * 1000 + math.floor(t[2] / 1000))
end
local number = redis.call('HINCRBY', KEYS[1], 'number', 1)
return redis.call('HGET', KEYS[1], 'id') .. ':' .. number"""
_BOOT = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return 0 end  -- all was lost since then
local last = redis.call('HGET', KEYS[2], 'boot')
if last and tonumber(last) > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'boot', ARGV[2])
for at = 4, #ARGV, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, at, math.min(at + 999, #ARGV)))
end
if tonumber(ARGV[3]) > 0 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return 1"""
_REMEMBERS = """
local at = redis.call('HGET', KEYS[1], 'at')
if not at then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now < tonumber(at) then  -- its clock was set back since
  redis.call('HSET', KEYS[1], 'at', now)
  at = now
end
return math.floor(now - at)"""
_RESTORE_USE = f"""
for n, key in ipairs(KEYS) do
  local counted = math.max(tonumber(redis.call('GET', key) or '0'), tonumber(ARGV[n]))
  redis.call('SET', key, counted, 'EX', {USED_FOR_S})
end"""


class ValkeyMemory(
    ValkeyHealth, ValkeyOutbox, ValkeyTroubles, ValkeyBroadcasts, ValkeyLoads, ValkeyMeasures
):
    """See ``ports.memory.Memory`` for what it promises."""

    # -- Governors

    def begin_boot(self) -> str:
        server = bounded(lambda: self._redis.info("server"))["run_id"]
        return str(self._script(_TICKET, [_BOOTS], [secrets.token_hex(8), server]))

    def boot(
        self,
        account_id: str,
        ticket: str,
        state: str,
        terms: Sequence[Terms],
        generation: int = 1,
    ) -> bool:
        fields: dict[str, str | int] = {"state": state, "generation": generation}
        for term in terms:
            fields |= {
                f"{term.entitlement_id}:sku": term.sku_id,
                f"{term.entitlement_id}:plan": term.plan_type,
                f"{term.entitlement_id}:state": term.state,
                f"{term.entitlement_id}:version": term.policy_version,
                f"{term.entitlement_id}:concurrent": term.concurrent_actions,
                f"{term.entitlement_id}:monthly": term.monthly_actions,
                f"{term.entitlement_id}:refused": term.refused_policy,
            }
            for signal_type in term.signal_types:
                key = f"route:{signal_type}"
                fields[key] = f"{fields.get(key, '')} {term.entitlement_id}".strip()
        return self._booted(account_id, ticket, fields, 0)

    def forget(self, account_id: str, ticket: str) -> bool:
        return self._booted(account_id, ticket, {}, _FORGOTTEN_FOR_S)

    def _booted(
        self, account_id: str, ticket: str, fields: Mapping[str, str | int], expires_s: int
    ) -> bool:
        flat = [each for pair in fields.items() for each in pair]
        keys = [_BOOTS, governor_key(account_id)]
        return bool(self._script(_BOOT, keys, [*ticket.split(":"), expires_s, *flat]))

    def remembers_s(self) -> float:
        return int(self._script(_REMEMBERS, [_BOOTS], [])) / 1000

    def held(self, account_id: str, entitlement_id: str) -> list[str]:
        key = inflight_key(account_id, entitlement_id)
        return sorted(bounded(lambda: self._redis.smembers(key)))

    def in_flight(self, account_id: str, entitlement_ids: Sequence[str]) -> int:
        keys = [inflight_key(account_id, each) for each in entitlement_ids]
        return sum(bounded(lambda: [self._redis.scard(key) for key in keys]))

    def used(self, account_id: str, entitlement_id: str, month: str) -> int:
        return int(
            bounded(lambda: self._redis.get(used_key(account_id, entitlement_id, month))) or 0
        )

    def rolling_back(self, account_id: str) -> int:
        return int(bounded(lambda: self._redis.scard(rolling_key(account_id))))

    def restore_use(self, used: Mapping[tuple[str, str, str], int]) -> None:
        self._script(_RESTORE_USE, [used_key(*key) for key in used], [*used.values()])

    # -- Tallies

    def count(
        self, ledger: str, reason: str, batch: str, refused_for: str = "", *, era: str | None = None
    ) -> str:
        keys = [_TALLY, _name(batch), ERA]
        told = ["first", ""] if era is None else ["again", era]
        return str(self._script(_COUNT, keys, [f"{ledger} {reason}", refused_for, *told]))

    def written_down(self) -> str:
        self._written_down("redis.call('SET', KEYS[1], 1)", [f"{_TALLY}:told"], [])
        return str(bounded(lambda: self._redis.info("server"))["run_id"])

    def forget_batches(self, batches: Sequence[str]) -> None:
        if batches:
            bounded(lambda: self._redis.unlink(*map(_name, batches)))

    def take_counts(self, window: str) -> dict[str, dict[str, dict[str, int]]]:
        keys = [_TALLY, f"{_TALLY}:{window}", _WINDOWS, f"{_TALLY}:taken"]
        windows = self._written_down(_FREEZE, keys, [window])
        return {w: self._frozen(w) for w in sorted(windows)}

    def drop_counts(self, window: str) -> None:
        def drop() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(f"{_TALLY}:{window}").srem(_WINDOWS, window).execute()

        bounded(drop)

    # -- Unsealed

    def mark_unsealed(self, *account_ids: str, is_one_of_many: bool = False) -> None:
        key = _UNSEALED_MANY if is_one_of_many else UNSEALED
        bounded(lambda: self._redis.sadd(key, *account_ids))

    def take_unsealed(self, limit: int, hold_s: int) -> list[tuple[str, str]]:
        accounts, token = self._script(_TAKE, [UNSEALED, _SEALING, _UNSEALED_MANY], [limit, hold_s])
        return [(account, token) for account in accounts]

    def sealed(self, account_id: str, token: str) -> None:
        self._script(_DROP, [_SEALING, _SEALED_AT], [account_id, token])

    def unsealed_count(self) -> int:
        def count() -> int:
            marked = self._redis.scard(UNSEALED) + self._redis.scard(_UNSEALED_MANY)
            return int(marked + self._redis.zcard(_SEALING))

        return bounded(count)

    def sealed_ago_s(self) -> float:
        keys = [UNSEALED, _SEALING, _UNSEALED_MANY, _SEALED_AT]
        return int(self._script(_SEALED_AGO, keys, [])) / 1000

    def announce(self, run_id: str) -> None:
        bounded(lambda: self._redis.publish(_ENDED, run_id))

    def _frozen(self, window: str) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for field, n in bounded(lambda: self._redis.hgetall(f"{_TALLY}:{window}")).items():
            ledger, _, reason = field.partition(" ")
            counts.setdefault(ledger, {})[reason] = int(n)
        return counts


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


def _name(batch: str) -> str:
    return f"ggen:batch:{batch}"
