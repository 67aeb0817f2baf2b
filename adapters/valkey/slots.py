"""Slots in Valkey: who may act, who is at it, and when the reaper looks at each action next.

``ggen:inflight:…`` are sets that limit concurrency; ``ggen:looks`` orders every action under way
by the moment of its next look; ``ggen:claims`` says which process is at one.
"""

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from adapters.local.system import boot_id, since_boot_ms
from adapters.valkey.connection import NOW, Connected, bounded
from governor.actions import FIRST_LOOK_MS
from governor.bake import Outcomes
from governor.quota import Verdict
from governor.records import ProcessClaim
from ports.slots import Admission, Due, Ended, Request, Slot

SEEN_FOR_S = 3600
"""How long an admission's answer is remembered here; Documents remember it for ever."""

_SEEN_ENDED_FOR_S = 900
"""How long once its action has ended: answers are most of what Memory holds."""

USED_FOR_S = 64 * 24 * 3600
"""How long a month's use is kept: it outlives its month."""

_ENDINGS_FOR_H = 24
"""For how many hours it is known how actions under a policy ended; each hour has a hash."""

UNSEALED, LEASE, ERA = "ggen:unsealed", "ggen:lease", "ggen:era"
_LOOKS, _CLAIMS = "ggen:looks", "ggen:claims"
_ORPHANS = "ggen:orphans"
STANDING = """
-- The last three values say who asks: boot of its machine, milliseconds since then, and a lease it
-- has known for longer than its duration. The expiry alone follows a clock that can be set.
local function holds(lease)
  local boot, at, lasts = string.match(lease, '^[^:]*:([^:]*):(%d+):(%d+)$')
  if not boot then return true end  -- written by release 0.1.0
  if boot == ARGV[#ARGV - 2] then return ARGV[#ARGV - 1] - at < tonumber(lasts) end
  return lease ~= ARGV[#ARGV]
end
local function standing(account)
  if redis.call('GET', 'ggen:mode') == 'degraded' then return 'degraded', 'all', '' end
  local lease = redis.call('GET', 'ggen:lease')
  if not lease or not holds(lease) then return 'no-lease', 'all', lease or '' end
  if redis.call('SISMEMBER', 'ggen:degraded', account) == 1 then
    return 'degraded', 'some', lease
  end
  return 'admitted', 'all', lease
end
"""
_ADMIT = STANDING + files("adapters.valkey").joinpath("admission.lua").read_text()
_LOOK_AGAIN = f"""{NOW}
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])"""
HOLD = f"""{NOW}
local function hold(late)
  local member, month = string.match(late, '^(.+) (.+)$')
  local entitlement, action = string.match(member, '^(.+)/([^/]+)$')
  redis.call('ZADD', 'ggen:looks', 'NX', now + {FIRST_LOOK_MS}, member)
  if redis.call('SADD', 'ggen:inflight:' .. entitlement, action) == 0 then return end
  local used = 'ggen:used:' .. entitlement .. '/' .. month
  redis.call('INCR', used)
  redis.call('EXPIRE', used, {USED_FOR_S})
end"""
LATE = "ggen:late"
_HOLD = f"""{HOLD}
local era = redis.call('GET', KEYS[1])
if not era then redis.call('SADD', KEYS[2], ARGV[1])
elseif era ~= ARGV[2]
  or ARGV[3] == '1' and not redis.call('ZSCORE', 'ggen:looks', string.match(ARGV[1], '^%S+'))
then hold(ARGV[1]) end"""
_NOTE = f"""{NOW}
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if known then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end"""
_BEGIN = f"""{STANDING}
local allowed, _, lease = standing(ARGV[4])
if allowed ~= 'admitted' then return {{allowed, lease}} end
{_NOTE}
return {{allowed, lease}}"""
_BEGIN_UNDO = f"""{_NOTE}
if known then redis.call('SADD', KEYS[3], ARGV[4]) end
redis.call('SADD', KEYS[4], ARGV[5])"""
_RELEASE = f"""{NOW}
local account, entitlement, action, endings, ending, look_in_ms, refund = unpack(ARGV)
local place = account .. '/' .. entitlement
local member = place .. '/' .. action
local held = redis.call('SREM', 'ggen:inflight:' .. place, action)
redis.call('HDEL', 'ggen:claims', member)
redis.call('SREM', 'ggen:rolling:' .. account, action)
redis.call('SADD', 'ggen:unsealed', account)
local at = held == 1 and refund == '' and redis.call('HGET', KEYS[2], 'at')
if at then
  local load = 'ggen:load:' .. place
  redis.call('HINCRBY', load, 'ended', 1)
  redis.call('HINCRBY', load, 'held_ms', math.max(0, now - at))
  if ending == 'timed_out' then redis.call('HINCRBY', load, 'timed_out', 1) end
  redis.call('EXPIRE', load, 3600)
end
if held == 1 and endings ~= '' then
  local hour = endings .. ':' .. math.floor(t[1] / 3600)
  redis.call('HINCRBY', hour, ending, 1)
  redis.call('HINCRBY', hour, account .. (ending == 'complete' and ' well' or ' badly'), 1)
  redis.call('EXPIRE', hour, {(_ENDINGS_FOR_H + 2) * 3600})
end
if look_in_ms == '' then redis.call('ZREM', KEYS[1], member)
else redis.call('ZADD', KEYS[1], now + look_in_ms, member) end
if refund == '' then
  redis.call('EXPIRE', KEYS[2], {_SEEN_ENDED_FOR_S})
  return
end
local month = redis.call('HGET', KEYS[2], 'month') or refund
if held == 1 then redis.call('DECR', 'ggen:used:' .. place .. '/' .. month) end
redis.call('DEL', KEYS[2])"""
_DUE = f"""{NOW}
local found = {{}}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, now, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  local at = redis.call('HGET', 'ggen:seen:' .. string.match(member, '[^/]+$'), 'at')
  found[#found + 1] = {{member, at and string.format('%d', now - at) or ''}}
end
return found"""


class ValkeySlots(Connected):
    """See ``ports.memory.Slots`` for what it promises."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._boot = boot_id()
        self._lease: tuple[str, int] = "", 0

    def admit(self, requests: Sequence[Request]) -> list[Admission]:
        asker, admissions = self.asker(), []
        calls = [_asked(each, asker) for each in requests]
        for lease, verdict, *terms in self._script_each(_ADMIT, calls):
            self.saw(lease)
            admissions.append(Admission(Verdict(verdict), *terms))
        return admissions

    def asker(self) -> list[str | int]:
        """The caller's boot, its time since boot, and the lease it must no longer trust."""
        lease, seen_ms = self._lease
        lasts = lease.rpartition(":")[2]
        is_stale = lasts.isdecimal() and since_boot_ms() - seen_ms >= int(lasts)
        return [self._boot, since_boot_ms(), lease if is_stale else ""]

    def saw(self, lease: str) -> None:
        """Note when this process first saw a lease: it trusts none for longer than that lasts."""
        if lease != self._lease[0]:
            self._lease = lease, since_boot_ms()

    def hold(self, slot: Slot, month: str, era: str, *, is_late: bool = False) -> None:
        self._script(_HOLD, [ERA, LATE], [f"{_member(slot)} {month}", era, int(is_late)])

    def is_watched(self, slot: Slot) -> bool:
        return bounded(lambda: self._redis.zscore(_LOOKS, _member(slot))) is not None

    def begin(self, slot: Slot, claim: ProcessClaim, look_in_ms: int) -> Verdict:
        values = [_member(slot), look_in_ms, claim.model_dump_json(), slot.account_id]
        verdict, lease = self._script(_BEGIN, [_LOOKS, _CLAIMS], [*values, *self.asker()])
        self.saw(lease)
        return Verdict(verdict)

    def begin_undo(self, slot: Slot, claim: ProcessClaim, look_in_ms: int) -> None:
        keys = [_LOOKS, _CLAIMS, rolling_key(slot.account_id), UNSEALED]
        self._script(
            _BEGIN_UNDO,
            keys,
            [_member(slot), look_in_ms, claim.model_dump_json(), slot.action_id, slot.account_id],
        )

    def look_again(self, slot: Slot, in_ms: int) -> None:
        self._script(_LOOK_AGAIN, [_LOOKS], [_member(slot), in_ms])

    def release(
        self,
        slot: Slot,
        *,
        refund_month: str | None = None,
        look_in_ms: int | None = None,
        ended: Ended | None = None,
    ) -> None:
        values = [
            slot.account_id,
            slot.entitlement_id,
            slot.action_id,
            _endings_key(ended.policy_digest) if ended else "",
            ended.ending if ended else "",
            "" if look_in_ms is None else look_in_ms,
            refund_month or "",
        ]
        self._script(_RELEASE, [_LOOKS, f"ggen:seen:{slot.action_id}"], values)

    def outcomes(self, policy_digest: str) -> Outcomes:
        counts: Counter[str] = Counter()
        for hour in bounded(lambda: self._endings(_endings_key(policy_digest))):
            counts.update({name: int(count) for name, count in hour.items()})
        accounts: dict[str, tuple[int, int]] = {}
        for name, count in counts.items():
            account, _, how = name.partition(" ")
            if how:
                ended, bad = accounts.get(account, (0, 0))
                accounts[account] = ended + count, bad + (count if how == "badly" else 0)
        totals = {name: count for name, count in counts.items() if " " not in name}
        return Outcomes(**totals, accounts=accounts)

    def _endings(self, key: str) -> list[dict[str, str]]:
        now_h = int(self._redis.time()[0]) // 3600
        with self._redis.pipeline(transaction=False) as pipe:
            for hour in range(now_h - _ENDINGS_FOR_H, now_h + 1):
                pipe.hgetall(f"{key}:{hour}")
            return list(pipe.execute())

    def due(self, limit: int) -> list[Due]:
        return [
            Due(_slot(member), int(age_ms) if age_ms else None)
            for member, age_ms in self._script(_DUE, [_LOOKS], [limit])
        ]

    def claims(self) -> list[tuple[Slot, ProcessClaim]]:
        found = bounded(lambda: self._redis.hgetall(_CLAIMS))
        return [(_slot(m), ProcessClaim.model_validate_json(text)) for m, text in found.items()]

    def restore_slots(self, held: Sequence[Slot], looked_at: Sequence[Slot]) -> None:
        def write() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                for slot in held:
                    pipe.sadd(inflight_key(slot.account_id, slot.entitlement_id), slot.action_id)
                for slot in (*held, *looked_at):
                    pipe.zadd(_LOOKS, {_member(slot): 0})
                pipe.execute()

        bounded(write)

    def held_count(self) -> int:
        return int(bounded(lambda: self._redis.zcard(_LOOKS)))

    def note_orphans(self, count: int) -> None:
        bounded(lambda: self._redis.set(_ORPHANS, count))

    def orphans(self) -> int:
        return int(bounded(lambda: self._redis.get(_ORPHANS)) or 0)


def _asked(request: Request, asker: list[str | int]) -> tuple[list[str], list[Any]]:
    """Keys and values of the script of admission."""
    keys = [LEASE, governor_key(request.account_id), _LOOKS, f"ggen:seen:{request.action_id}"]
    return keys, [
        request.account_id,
        request.action_id,
        request.signal_type,
        request.sku_id or "",
        request.signal_sha256,
        request.month,
        request.look_in_ms,
        SEEN_FOR_S,
        request.entitlement_id or "",
        "" if request.generation is None else request.generation,
        *asker,
    ]


def governor_key(account_id: str) -> str:
    """What admission knows of a governor."""
    return f"ggen:governor:{account_id}"


def inflight_key(account_id: str, entitlement_id: str) -> str:
    """The slots an entitlement holds."""
    return f"ggen:inflight:{account_id}/{entitlement_id}"


def used_key(account_id: str, entitlement_id: str, month: str) -> str:
    """How many actions of a month were admitted."""
    return f"ggen:used:{account_id}/{entitlement_id}/{month}"


def rolling_key(account_id: str) -> str:
    """The actions of a governor that are being undone."""
    return f"ggen:rolling:{account_id}"


def _endings_key(policy_digest: str) -> str:
    return f"ggen:endings:{policy_digest}"


def _member(slot: Slot) -> str:
    return f"{slot.account_id}/{slot.entitlement_id}/{slot.action_id}"


def _slot(member: str) -> Slot:
    return Slot(*member.split("/"))
