"""Versions in Valkey: see ``ports.broadcasts``. A hash of plans, a hash of processes, a channel."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import redis

from adapters.valkey.connection import NOW, TIMEOUT_S, Connected, bounded
from governor.compatibility import number_of
from governor.errors import OutageError
from governor.records import ProcessClaim
from ports.broadcasts import Answer, InForce, Listening

IN_FORCE = "ggen:policies"
"""Plan -> ``rank version digest since watched``; a rank sorts as text as its version does."""

_SETTLED_MS, _SINCE = 30_000, "ggen:policies:since"
"""After this long a lower version that Documents tell is the truth: they were restored."""

_ASKED, _PROCESSES, _CHANNEL = "ggen:policies:asked", "ggen:policies:processes", "ggen:policies:new"
_BROADCAST = f"""{NOW}
local is_new, named = false, {{}}
local function is_settled(plan)  -- no announcement is on its way that Documents did not tell yet
  return now - tonumber(redis.call('HGET', KEYS[4], plan) or '0') > {_SETTLED_MS}
end
for n = 2, #ARGV, 3 do
  local plan, text = ARGV[n], ARGV[n + 1] .. ' ' .. ARGV[n + 2]
  local former = redis.call('HGET', KEYS[1], plan)
  named[plan] = true
  local goes_on = not former or string.match(former, '^%S+') <= ARGV[n + 1]
  if former ~= text and (goes_on or ARGV[1] == 'all' and is_settled(plan)) then
    redis.call('HSET', KEYS[1], plan, text)
    redis.call('HSET', KEYS[4], plan, now)
    is_new = true
  end
end
if ARGV[1] == 'all' then
  redis.call('SET', KEYS[2], now)
  for _, plan in ipairs(redis.call('HKEYS', KEYS[1])) do
    if not named[plan] and is_settled(plan) then redis.call('HDEL', KEYS[1], plan) end
  end
end
if is_new then redis.call('PUBLISH', KEYS[3], '') end"""
_IN_FORCE = f"""{NOW}
local asked = redis.call('GET', KEYS[2])
return {{redis.call('HGETALL', KEYS[1]), asked and string.format('%d', now - asked) or ''}}"""
_ANSWER = f"""{NOW}
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now) .. ' ' .. ARGV[2])"""
_ANSWERS = f"""{NOW}
return {{string.format('%d', now), redis.call('HVALS', KEYS[1])}}"""


class ValkeyBroadcasts(Connected):
    """See ``ports.broadcasts.Broadcasts`` for what it promises."""

    def broadcast(self, versions: Sequence[InForce], *, is_all: bool = False) -> None:
        values = ["all" if is_all else "some"]
        for each in versions:
            mark = "watched" if each.is_watched else "-"
            text = f"{each.version} {each.digest} {each.since or '-'} {mark}"
            values += [each.plan, _rank(each.version), text]
        self._script(_BROADCAST, [IN_FORCE, _ASKED, _CHANNEL, _SINCE], values)

    def in_force(self) -> tuple[list[InForce], float | None]:
        flat, age_ms = self._script(_IN_FORCE, [IN_FORCE, _ASKED], [])
        plans = zip(flat[::2], flat[1::2], strict=True)
        known = [_version(plan, text) for plan, text in sorted(plans)]
        return known, max(0, int(age_ms)) / 1000 if age_ms else None

    def answer(self, listening: Listening) -> None:
        told = {
            "role": listening.role,
            "claim": listening.claim.document(),
            "answers": [asdict(each) for each in listening.answers],
            "confirmed_s": listening.confirmed_s,
            "children": listening.children,
        }
        self._script(_ANSWER, [_PROCESSES], [listening.name, json.dumps(told)])

    def answers(self) -> list[Listening]:
        now_ms, found = self._script(_ANSWERS, [_PROCESSES], [])
        known = [_listening(int(now_ms), text) for text in found]
        return sorted(known, key=lambda each: (each.role, each.name))

    def forget_listening(self, name: str) -> None:
        bounded(lambda: self._redis.hdel(_PROCESSES, name))


class ValkeyHearing:
    """See ``ports.broadcasts.Hearing`` for what it promises."""

    def __init__(self, url: str) -> None:
        self._url = url

    def hear(self, every_s: float) -> Iterator[None]:
        connection: Any = redis.Redis.from_url(
            self._url, socket_connect_timeout=TIMEOUT_S, socket_timeout=every_s + TIMEOUT_S
        )
        try:
            with connection, connection.pubsub(ignore_subscribe_messages=True) as subscription:
                subscription.subscribe(_CHANNEL)
                subscription.get_message(timeout=TIMEOUT_S)  # the answer to the subscription
                while True:
                    yield
                    _wait(subscription, every_s)
        except (redis.RedisError, OSError) as error:
            detail = f"Valkey does not answer: {type(error).__name__}"
            raise OutageError("memory-unavailable", detail, 2) from error


def _wait(subscription: Any, every_s: float) -> None:
    """Until an announcement, or until the time is up; a ping finds a connection that is dead."""
    until = time.monotonic() + every_s
    while (left_s := until - time.monotonic()) > 0:
        if subscription.get_message(timeout=left_s):
            return
    subscription.ping()


def _rank(version: str) -> str:
    return ".".join(f"{number:020d}" for number in number_of(version))


def _version(plan: str, text: str) -> InForce:
    _, version, digest, since, mark = text.split(" ")
    return InForce(plan, version, digest, "" if since == "-" else since, mark == "watched")


def _listening(now_ms: int, text: str) -> Listening:
    at_ms, _, told = text.partition(" ")
    known = json.loads(told)
    return Listening(
        known["role"],
        ProcessClaim.model_validate(known["claim"]),
        tuple(Answer(**each) for each in known["answers"]),
        known["confirmed_s"],
        max(0, now_ms - int(at_ms)) / 1000,
        known.get("children", 0),  # an earlier release says none
    )
