"""Lists of waiting actions in Valkey: see ``ports.dispatch``, and ``dispatch.lua`` for the keys."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from adapters.valkey.connection import NOW, bounded
from adapters.valkey.slots import STANDING, ValkeySlots
from governor.actions import FIRST_LOOK_MS
from governor.records import ProcessClaim
from ports.dispatch import Call, Queue, Turn, Waiting
from ports.slots import Slot

_LIMITS = "ggen:limits"
_SERVES_MS = 2_000
"""How much longer than its limit a process counts as serving that is not heard of any more."""

_RULES = f"{NOW}{STANDING}" + files("adapters.valkey").joinpath("dispatch.lua").read_text()
_ENQUEUE = f"""{_RULES}
local at, account, member, accepted, weight, handler, its_now = unpack(ARGV)
local off = now * 1000 - its_now  -- Memory's clock may have been set, or be another machine's
if math.abs(off) > 2000000 then accepted = string.format('%d', accepted + off) end
redis.call('SADD', KEYS[1], at)
local is_new = redis.call('ZADD', at .. 'work:' .. account, 'NX', accepted, member) == 1
if is_new and redis.call('ZCARD', at .. 'work:' .. account) == 1
  or not is_new and not redis.call('LPOS', at .. 'ring', account) then
  redis.call('RPUSH', at .. 'ring', account)
end
if weight ~= '1' then redis.call('HSET', at .. 'weights', account, weight) end
return rings(at, pace_of(handler))"""
_TAKE = f"""{_RULES}
local at, server, until_ms, round, handler, took_ms, look_in_ms, claim = unpack(ARGV)
local lease = redis.call('GET', 'ggen:lease') or ''
note_pace(handler, took_ms)
local is_wanted = round == '' or came(at, round)
local account, named
if is_wanted then account, named = pop(at) end
if not account then
  redis.call('ZREM', at .. 'serving', server)  -- what comes now wakes it, or calls another one
  redis.call('ZREM', at .. 'idle', server)
  local is_to_stay = is_wanted and ARGV[9] ~= '0' and stays(at, server, ARGV[9])
  return {{lease, '', '', is_to_stay and 1 or 0, {{0, 0}}}}
end
redis.call('SET', at .. 'taken', server, 'PX', RECENT_MS)
local place, its = string.match(named, '^([^/]+/[^/]+)/(.*)$')
local member = account .. '/' .. place
if redis.call('ZADD', 'ggen:looks', 'XX', 'CH', now + look_in_ms, member) == 1 then
  redis.call('HSETNX', 'ggen:claims', member, claim)  -- not over the head of who is at it
end
local pace = pace_of(its)
local slow = pace > SHORT_MS
if slow then redis.call('ZREM', at .. 'serving', server)  -- short ones do not wait for it
else redis.call('ZADD', at .. 'serving', now + until_ms, server) end
return {{lease, account, place, slow and 0 or 1, rings(at, pace)}}"""
_LEAVE = f"""{_RULES}
local at, server, handler, took_ms = unpack(ARGV)
redis.call('ZREM', at .. 'serving', server)
-- Who is left may be stuck: where this one alone took lately, another one is called.
if redis.call('GET', at .. 'taken') == server then redis.call('DEL', at .. 'taken') end
note_pace(handler, took_ms)
return rings(at, handler ~= '' and pace_of(handler) or 0)"""
_UNSERVED = f"""{_RULES}
local found = {{}}
for _, at in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if not waits(at) then redis.call('SREM', KEYS[1], at)
  elseif redis.call('EXISTS', at .. 'taken') == 0 then
    local call = rings(at, 0)
    if call[1] > 0 then found[#found + 1] = {{at, call}} end
  end
end
return found"""
_DEPTH = """
local depth = 0
for _, at in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  depth = depth + redis.call('ZCARD', at .. 'work:' .. ARGV[1])
end
return depth"""
_QUEUES = f"""{NOW}
local depths, oldest, accounts, all = {{}}, {{}}, {{}}, 0
for _, at in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  for _, account in ipairs(redis.call('LRANGE', at .. 'ring', 0, -1)) do
    local work = at .. 'work:' .. account
    local depth, first = redis.call('ZCARD', work), redis.call('ZRANGE', work, 0, 0, 'WITHSCORES')
    if not depths[account] then accounts[#accounts + 1] = account end
    depths[account] = (depths[account] or 0) + depth
    local since = tonumber(first[2] or now * 1000)
    oldest[account] = math.min(oldest[account] or since, since)
    all = all + depth
  end
end
table.sort(accounts, function(a, b) return depths[a] > depths[b] end)
local longest = {{}}
for n = 1, math.min(#accounts, tonumber(ARGV[1])) do
  local account = accounts[n]
  longest[n] = {{account, depths[account], string.format('%d', oldest[account])}}
end
return {{all, string.format('%d', now), longest}}"""


class ValkeyDispatch(ValkeySlots):
    """See ``ports.dispatch.Dispatch`` for what it promises.

    ``most_serving``: how many processes serve handlers that take no time, at most; 0: as many as
    there are. Where they share a machine with their store, more than it has cores only wait for
    each other.
    """

    def __init__(self, url: str, most_serving: int = 0) -> None:
        super().__init__(url)
        self._most_serving = most_serving

    def enqueue(self, waiting: Sequence[Waiting]) -> list[Call]:
        asker = self._caller()
        calls = [([_LIMITS], [*_put(each), *asker]) for each in waiting]
        return [Call(*told) for told in self._script_each(_ENQUEUE, calls)]

    def take(
        self,
        limit_ms: int,
        server: str,
        claim: ProcessClaim,
        *,
        called_in: int | None = None,
        ended: tuple[str, float] | None = None,
        stays_ms: int = 0,
    ) -> Turn:
        handler, took_ms = ended or ("", 0)
        values = [
            _at(limit_ms),
            server,
            limit_ms + _SERVES_MS,
            "" if called_in is None else called_in,
            handler,
            took_ms,
            FIRST_LOOK_MS,
            claim.model_dump_json(),
            stays_ms,
        ]
        lease, account_id, named, flag, call = self._script(_TAKE, [], [*values, *self._caller()])
        self.saw(lease)
        if not account_id:
            return Turn(None, stays=bool(flag))
        slot = Slot(account_id, *named.split("/"))
        return Turn(slot, Call(*call), is_short=bool(flag))

    def wait(self, limit_ms: int, server: str, within_ms: int) -> None:
        name = f"{_at(limit_ms)}wake:{server}"
        bounded(lambda: self._redis.blpop(name, timeout=within_ms / 1000))

    def leave(self, limit_ms: int, server: str, ended: tuple[str, float] | None) -> Call:
        values = [_at(limit_ms), server, *(ended or ("", 0))]
        return Call(*self._script(_LEAVE, [], [*values, *self._caller()]))

    def unserved(self) -> Sequence[tuple[int, Call]]:
        found = self._script(_UNSERVED, [_LIMITS], self._caller())
        return [(int(at.split(":")[2]), Call(*call)) for at, call in found]

    def _caller(self) -> list[str | int]:
        """What ``dispatch.lua`` knows of who calls its rules."""
        return [self._most_serving, *self.asker()]

    def depth(self, account_id: str) -> int:
        return int(self._script(_DEPTH, [_LIMITS], [account_id]))

    def queues(self, limit: int) -> tuple[int, list[Queue]]:
        depth, now_ms, found = self._script(_QUEUES, [_LIMITS], [limit])
        now_s = int(now_ms) / 1000
        longest = [Queue(name, n, max(0.0, now_s - int(at) / 1e6)) for name, n, at in found]
        return depth, longest


def _put(waiting: Waiting) -> list[Any]:
    slot = waiting.slot
    return [
        _at(waiting.limit_ms),
        slot.account_id,
        f"{slot.entitlement_id}/{slot.action_id}/{waiting.handler}",
        waiting.accepted_us,
        waiting.weight,
        waiting.handler,
        waiting.now_us,
    ]


def _at(limit_ms: int) -> str:
    """What the keys of one hard limit begin with."""
    return f"ggen:dispatch:{limit_ms}:"
