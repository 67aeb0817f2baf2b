"""Lease, mode, drills and signs of life in Valkey: see ``ports.health``.

``ggen:lease`` expires by itself. ``ggen:era`` names the epoch: it stays while Memory has lost
nothing since its last rebuild. ``extend_lease`` and ``owe`` renew an expired lease from it.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

from adapters.local.system import since_boot_ms
from adapters.valkey.connection import NOW, bounded
from adapters.valkey.dispatch import ValkeyDispatch
from adapters.valkey.slots import ERA, HOLD, LATE, LEASE, STANDING
from governor.health import Drill, Outage, Scope
from governor.quota import Verdict
from ports.health import Health, Owed, Seen

_MODE, _ACCOUNTS, _REBUILD = "ggen:mode", "ggen:degraded", "ggen:rebuild"
_ADMITTED = "ggen:admitted"
_SPOOLED, _DRILL, _DRILLED = "ggen:spooled", "ggen:drill", "ggen:drilled"
_REMEMBERED_FOR_S = 30 * 24 * 3600
"""How long Memory knows when a component was seen last."""

_LIVES = f"""{NOW}
-- A sign of life is `moment until since`, by this server's clock. Beside it, in a key of its own
-- since earlier releases read the first, is `moment boot ms`: the same moment by a machine's count
-- since its boot, which no setting of a clock moves.
-- How long ago it was, how long it lasts from now on, and for how long it has gone on.
local function age(key, boot, boot_ms)
  local at, till, since = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if not at then return nil end
  local noted, its, ms = string.match(
    redis.call('GET', key .. ':boot') or '', '^(%d+) (%S+) (%d+)$')
  local ago = now - at
  if noted == at and its == boot then ago = math.max(0, boot_ms - ms)
  elseif ago < -1000 then return nil end  -- a clock was set back since
  local left = till - at - ago
  return ago, left, left > 0 and at - since + ago or 0
end
local function live(key, lasts, goes_on_for, boot, boot_ms)
  local seen = string.format('%d %d %d', now, now + lasts, now - goes_on_for)
  redis.call('SET', key, seen, 'EX', {_REMEMBERED_FOR_S})
  local moment = string.format('%d %s %d', now, boot, boot_ms)
  redis.call('SET', key .. ':boot', moment, 'EX', {_REMEMBERED_FOR_S})
end"""
_LEASED = f"""{_LIVES}
-- Renew the lease, and note when that was.
local function lease(key, value, lasts)
  redis.call('SET', key, value, 'PX', lasts)
  local boot, boot_ms = string.match(value, ':([^:]*):(%d+):%d+$')
  live('ggen:alive:lease', lasts, 0, boot, boot_ms)
end"""
_EXTEND = f"""{_LEASED}
local era = redis.call('GET', KEYS[2])
if not era then return 0 end
lease(KEYS[1], era .. ARGV[2], ARGV[1])
return 1"""
_CONTINUE = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXPIRE', KEYS[1], ARGV[2])"""
_CREATE = f"""{HOLD}
{_LEASED}
local function to_map(words)
  local map = {{}}
  for n = 1, #words, 2 do map[words[n]] = words[n + 1] end
  return map
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
for _, late in ipairs(redis.call('SMEMBERS', KEYS[3])) do hold(late) end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], ARGV[2])
lease(KEYS[1], ARGV[2] .. ARGV[3], ARGV[1])
-- What is owed was owed without a lease: it ends now, and counts all that was refused until now.
local refused = redis.call('HGETALL', KEYS[6])
for id, debt in pairs(to_map(redis.call('HGETALL', KEYS[5]))) do
  local owed = cjson.decode(debt)
  for _, word in ipairs(refused) do owed[2][#owed[2] + 1] = word end
  redis.call('HSET', KEYS[5], id, cjson.encode({{owed[1], owed[2], ARGV[4]}}))
  refused = {{}}
end
redis.call('DEL', KEYS[6])
return 1"""
_ASK = f"""{STANDING}
local allowed, _, lease = standing(ARGV[1])
return {{allowed, lease}}"""
_LEFT = f"""{STANDING}
local lease = redis.call('GET', KEYS[1])
if not lease or not holds(lease) then return {{0, lease or ''}} end
local left = redis.call('PTTL', KEYS[1])
local boot, at, lasts = string.match(lease, '^[^:]*:([^:]*):(%d+):(%d+)$')
if boot == ARGV[1] then left = math.min(left, lasts - (ARGV[2] - at)) end
if lasts then left = math.min(left, tonumber(lasts)) end
return {{math.max(0, left), lease}}"""
_TICK = """
local lasts = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
-- One that would last longer than it was made for is of a clock that was set back since.
if lasts and left > 0 and left <= (tonumber(lasts) or 0) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[1])
return 1"""
_FAILED = """
local failures = redis.call('HGET', KEYS[1], 'failures') or 0
if (redis.call('HGET', KEYS[1], 'good') or '0') ~= ARGV[4] then return failures end
if redis.call('HGET', KEYS[1], 'last') == ARGV[1] then return failures end
redis.call('HSETNX', KEYS[1], 'since', ARGV[1])
redis.call('HSET', KEYS[1], 'last', ARGV[1], 'code', ARGV[2], 'detail', ARGV[3])
return redis.call('HINCRBY', KEYS[1], 'failures', 1)"""
_FORGET = """
redis.call('HDEL', KEYS[1], 'failures', 'since', 'last', 'code', 'detail')
redis.call('HINCRBY', KEYS[1], 'good', 1)"""
_WELL = f"""
{_FORGET}
for n = 1, #ARGV, 2 do
  if redis.call('HINCRBY', KEYS[2], ARGV[n], -ARGV[n + 1]) <= 0 then
    redis.call('HDEL', KEYS[2], ARGV[n])
  end
end"""
_IS_ANOTHER = """
local function name(text)
  if text == '' then return '' end
  local outage = cjson.decode(text)
  return outage.outage_id .. ' ' .. tostring(outage.drill)
end
if name(redis.call('HGET', KEYS[1], 'outage') or '') ~= name(ARGV[1]) then return 0 end"""
_DEGRADE = f"""
{_IS_ANOTHER}
redis.call('HSET', KEYS[1], 'outage', ARGV[2])
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 'admitted', redis.call('GET', 'ggen:admitted') or 0)
end
if #ARGV == 2 then redis.call('SET', KEYS[2], 'degraded') end
for n = 3, #ARGV do redis.call('SADD', KEYS[2], ARGV[n]) end
return 1"""
_OWE = f"""{STANDING}
{_LEASED}
{_IS_ANOTHER}
-- A lapse is owed by one check: it ends in the moment in which the lease is there again.
local held, era = redis.call('GET', KEYS[5]), redis.call('GET', KEYS[6])
if ARGV[1] == '' and ARGV[4] ~= '' then
  if held and holds(held) then return 0 end
  if not era and redis.call('HLEN', KEYS[4]) > 0 then return 0 end
end
{_FORGET}
redis.call('HDEL', KEYS[1], 'outage', 'admitted')
redis.call('DEL', KEYS[2])
local refused = {{}}
for _, word in ipairs(redis.call('HGETALL', KEYS[3])) do refused[#refused + 1] = word end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[4], ARGV[2], cjson.encode({{ARGV[3], refused}}))
if ARGV[4] ~= '' and era then lease(KEYS[5], era .. ARGV[5], ARGV[4]) end
return 1"""
_BEGIN_DRILL = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('DEL', KEYS[2])
for n = 3, #ARGV do redis.call('SADD', KEYS[2], ARGV[n]) end
return 1"""
_END_DRILL = """
local drill = redis.call('GET', KEYS[1])
if drill and string.find(drill, ARGV[1], 1, true) then redis.call('DEL', KEYS[1]) end"""
_ALIVE = f"""{_LIVES}
local _, left, goes_on_for = age(KEYS[1], ARGV[2], ARGV[3])
live(KEYS[1], ARGV[1], left and left > 0 and goes_on_for or 0, ARGV[2], ARGV[3])"""
_SEEN = f"""{_LIVES}
local found = {{}}
for n, key in ipairs(KEYS) do
  local ago, left, goes_on_for = age(key, ARGV[1], ARGV[2])
  found[n] = {{'', '', ''}}
  if ago then
    found[n] = {{string.format('%d', ago), string.format('%d', left),
      string.format('%d', goes_on_for)}}
  end
end
return found"""


class ValkeyHealth(ValkeyDispatch):
    """See ``ports.health`` for what it promises."""

    # -- Lease

    def extend_lease(self, seconds: float) -> bool:
        return bool(self._script(_EXTEND, [LEASE, ERA], [_ms(seconds), self._stamp(seconds)]))

    def begin_rebuild(self, seconds: int) -> str | None:
        era = token_hex(8)
        begun = bounded(lambda: self._redis.set(_REBUILD, era, ex=seconds, nx=True))
        return era if begun else None

    def continue_rebuild(self, era: str, seconds: int) -> bool:
        return bool(self._script(_CONTINUE, [_REBUILD], [era, seconds]))

    def create_lease(self, seconds: float, era: str, at: str) -> bool:
        keys = [LEASE, _REBUILD, LATE, ERA, _owed(Scope.ALL), _refused(Scope.ALL)]
        return bool(self._script(_CREATE, keys, [_ms(seconds), era, self._stamp(seconds), at]))

    def _stamp(self, seconds: float) -> str:
        """A lease's identity: the machine's boot, the milliseconds since then, and its duration."""
        return f":{self._boot}:{since_boot_ms()}:{_ms(seconds)}"

    def lease_left_s(self) -> float:
        left_ms, lease = self._script(_LEFT, [LEASE], self.asker())
        self.saw(lease)
        return int(left_ms) / 1000

    def standing(self, account_id: str) -> Verdict:
        verdict, lease = self._script(_ASK, [], [account_id, *self.asker()])
        self.saw(lease)
        return Verdict(verdict)

    # -- Modes

    def health(self, scope: Scope) -> Health:
        def read() -> Health:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(_state(scope)).hgetall(_refused(scope))
                pipe.get(_MODE).scard(_ACCOUNTS).get(_ADMITTED)
                known, refused, mode, accounts, admitted = pipe.execute()
            is_counted = "outage" in known and "admitted" in known
            return Health(
                is_degraded=bool(accounts) if scope is Scope.SOME else mode == "degraded",
                failures=int(known.get("failures", 0)),
                failing_since=known.get("since", ""),
                good=int(known.get("good", 0)),
                error_code=known.get("code", ""),
                error_detail=known.get("detail", ""),
                outage=_outage(known["outage"]) if "outage" in known else None,
                refused={account: int(count) for account, count in refused.items()},
                accepted=int(admitted or 0) - int(known["admitted"]) if is_counted else None,
            )

        return bounded(read)

    def note_failure(
        self, scope: Scope, seen: Health, began: str, error_code: str, error_detail: str
    ) -> int:
        values = [began, error_code, error_detail, seen.good]
        return int(self._script(_FAILED, [_state(scope)], values))

    def note_success(self, scope: Scope, seen: Health) -> None:
        pairs = [word for pair in seen.refused.items() for word in pair]
        self._script(_WELL, [_state(scope), _refused(scope)], pairs)

    def degrade(self, scope: Scope, outage: Outage, *, instead_of: Outage | None) -> bool:
        keys = [_state(scope), _refusing(scope)]
        values = [_json(instead_of), _json(outage), *outage.accounts]
        return bool(self._script(_DEGRADE, keys, values))

    def owe(
        self, scope: Scope, outage: Outage, *, instead_of: Outage | None, lease_s: float = 0
    ) -> bool:
        keys = [_state(scope), _refusing(scope), _refused(scope), _owed(scope), LEASE, ERA]
        lease = [_ms(lease_s), self._stamp(lease_s)] if lease_s else ["", ""]
        values = [_json(instead_of), outage.outage_id, _json(outage), *lease]
        return bool(self._script(_OWE, keys, [*values, *self.asker()]))

    def owed(self, scope: Scope) -> list[Owed]:
        found = map(json.loads, bounded(lambda: self._redis.hvals(_owed(scope))))
        return [Owed(_outage(text, *ended), _counts(refused)) for text, refused, *ended in found]

    def receipted(self, scope: Scope, outage_id: str) -> None:
        bounded(lambda: self._redis.hdel(_owed(scope), outage_id))

    def note_spooled(self, count: int | None = None) -> None:
        if count is None:
            bounded(lambda: self._redis.incr(_SPOOLED))
        else:
            bounded(lambda: self._redis.set(_SPOOLED, count))

    def spooled(self) -> int:
        return int(bounded(lambda: self._redis.get(_SPOOLED)) or 0)

    def begin_drill(self, drill: Drill, seconds: float) -> bool:
        values = [drill.model_dump_json(), _ms(seconds), *drill.accounts]
        return bool(self._script(_BEGIN_DRILL, [_DRILL, _DRILLED], values))

    def end_drill(self, drill_id: str) -> None:
        self._script(_END_DRILL, [_DRILL], [drill_id])

    def drill(self) -> Drill | None:
        found = bounded(lambda: self._redis.get(_DRILL))
        return Drill.model_validate_json(found) if found else None

    # -- Watches

    def claim_tick(self, name: str, seconds: float) -> bool:
        return bool(self._script(_TICK, [f"ggen:tick:{name}"], [_ms(seconds)]))

    def drop_tick(self, name: str) -> None:
        bounded(lambda: self._redis.delete(f"ggen:tick:{name}"))

    def beat_alive(self, component: str, seconds: float) -> None:
        values = [_ms(seconds), self._boot, since_boot_ms()]
        self._script(_ALIVE, [f"ggen:alive:{component}"], values)

    def time(self) -> datetime:
        seconds, microseconds = bounded(self._redis.time)
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def alive(self, components: Sequence[str]) -> dict[str, bool]:
        found = self._seen(components)
        return {
            c: bool(till) and int(till) > 0
            for c, (_ago, till, _streak) in zip(components, found, strict=True)
        }

    def _seen(self, components: Sequence[str]) -> Any:
        keys = [f"ggen:alive:{c}" for c in components]
        return self._script(_SEEN, keys, [self._boot, since_boot_ms()])

    def seen(self, components: Sequence[str]) -> dict[str, Seen | None]:
        found = self._seen(components)
        return {
            c: Seen(int(ago) / 1000, int(streak) / 1000) if ago else None
            for c, (ago, _till, streak) in zip(components, found, strict=True)
        }


def _state(scope: Scope) -> str:
    return f"ggen:health:{scope}"


def _refused(scope: Scope) -> str:
    return f"ggen:refused:{scope}"


def _owed(scope: Scope) -> str:
    return f"ggen:owed:{scope}"


def _refusing(scope: Scope) -> str:
    return _ACCOUNTS if scope is Scope.SOME else _MODE


def _outage(text: str, recovered_at: str | None = None) -> Outage:
    """An outage as Memory has it, or as it ended later. Raises UnreadableError where it is none."""
    try:
        outage = Outage.stored(json.loads(text))
    except ValueError:
        return Outage.stored({})
    return outage.evolve(recovered_at=recovered_at) if recovered_at else outage


def _counts(refused: Sequence[str]) -> dict[str, int]:
    """The sums of what each account was refused."""
    words = list(refused)  # cjson writes a list without elements as an object
    counts: Counter[str] = Counter()
    for account, count in zip(words[::2], words[1::2], strict=True):
        counts[account] += int(count)
    return dict(counts)


def _json(outage: Outage | None) -> str:
    return outage.model_dump_json() if outage else ""


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
