"""Lists of waiting actions in Valkey: see ``ports.dispatch``, and ``dispatch.lua`` for the keys."""

from collections.abc import Sequence
from importlib.resources import files

from adapters.valkey.connection import NOW
from adapters.valkey.slots import STANDING, ValkeySlots
from ports.dispatch import Queue, Turn, Waiting
from ports.slots import Slot

_LIMITS = "ggen:limits"
_SERVES_MS = 2_000
"""How much longer than its limit a process counts as serving that is not heard of any more."""

_RULES = f"{NOW}{STANDING}" + files("adapters.valkey").joinpath("dispatch.lua").read_text()
_ENQUEUE = f"""{_RULES}
local at, account, member, accepted, weight, handler = unpack(ARGV)
redis.call('SADD', KEYS[1], at)
if redis.call('ZADD', at .. 'work:' .. account, 'NX', accepted, member) == 1
  and redis.call('ZCARD', at .. 'work:' .. account) == 1 then
  redis.call('RPUSH', at .. 'ring', account)
end
if weight ~= '1' then redis.call('HSET', 'ggen:weights', account, weight)
else redis.call('HDEL', 'ggen:weights', account) end
return rings(at, is_slow(handler))"""
_TAKE = f"""{_RULES}
local at, server, until_ms, is_first, handler, took_ms = unpack(ARGV)
if is_first == '1' then redis.call('DEL', at .. 'called') end
if handler ~= '' then
  local pace = redis.call('HGET', 'ggen:pace', handler)
  pace = pace and 0.7 * pace + 0.3 * took_ms or took_ms
  redis.call('HSET', 'ggen:pace', handler, pace)
end
local account, member = pop(at)
if not account then return {{'', '', 0}} end
redis.call('ZADD', at .. 'serving', now + until_ms, server)
redis.call('SET', at .. 'taken', 1, 'PX', RECENT_MS)
local entitlement, action, its = string.match(member, '^([^/]+)/([^/]+)/(.*)$')
return {{account, entitlement .. '/' .. action, rings(at, is_slow(its))}}"""
_LEAVE = f"""{_RULES}
redis.call('ZREM', ARGV[1] .. 'serving', ARGV[2])
return rings(ARGV[1], true)"""
_UNSERVED = f"""{_RULES}
local found = {{}}
for _, at in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if not waits(at) then redis.call('SREM', KEYS[1], at)
  elseif redis.call('EXISTS', at .. 'taken') == 0 and rings(at, true) == 1 then
    found[#found + 1] = at
  end
end
return found"""
_QUEUES = f"""{NOW}
local found, all = {{}}, 0
for _, at in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  for _, account in ipairs(redis.call('LRANGE', at .. 'ring', 0, -1)) do
    local work = at .. 'work:' .. account
    local depth, oldest = redis.call('ZCARD', work), redis.call('ZRANGE', work, 0, 0, 'WITHSCORES')
    all = all + depth
    found[#found + 1] = {{account, depth, oldest[2] or '0'}}
  end
end
table.sort(found, function(a, b) return a[2] > b[2] end)
local longest = {{}}
for n = 1, math.min(#found, tonumber(ARGV[1])) do longest[n] = found[n] end
return {{all, string.format('%d', now), longest}}"""


class ValkeyDispatch(ValkeySlots):
    """See ``ports.dispatch.Dispatch`` for what it promises."""

    def enqueue(self, waiting: Waiting) -> bool:
        slot = waiting.slot
        values = [
            _at(waiting.limit_ms),
            slot.account_id,
            f"{slot.entitlement_id}/{slot.action_id}/{waiting.handler}",
            waiting.accepted_us,
            waiting.weight,
            waiting.handler,
        ]
        return bool(self._script(_ENQUEUE, [_LIMITS], [*values, *self.asker()]))

    def take(
        self,
        limit_ms: int,
        server: str,
        *,
        is_first: bool = False,
        ended: tuple[str, float] | None = None,
    ) -> Turn:
        handler, took_ms = ended or ("", 0)
        values = [_at(limit_ms), server, limit_ms + _SERVES_MS, int(is_first), handler, took_ms]
        account_id, named, rings = self._script(_TAKE, [], [*values, *self.asker()])
        slot = Slot(account_id, *named.split("/")) if account_id else None
        return Turn(slot, bool(rings))

    def leave(self, limit_ms: int, server: str) -> bool:
        return bool(self._script(_LEAVE, [], [_at(limit_ms), server, *self.asker()]))

    def unserved(self) -> Sequence[int]:
        found = self._script(_UNSERVED, [_LIMITS], self.asker())
        return [int(at.split(":")[2]) for at in found]

    def queues(self, limit: int) -> tuple[int, list[Queue]]:
        depth, now_ms, found = self._script(_QUEUES, [_LIMITS], [limit])
        now_s = int(now_ms) / 1000
        longest = [Queue(name, n, max(0.0, now_s - float(at) / 1e6)) for name, n, at in found]
        return depth, longest


def _at(limit_ms: int) -> str:
    """What the keys of one hard limit begin with."""
    return f"ggen:dispatch:{limit_ms}:"
