"""Letters that wait to be delivered, in Valkey: see ``ports.alerts.Outbox``."""

import json
from dataclasses import asdict

from adapters.valkey.connection import NOW, Connected, bounded
from ports.alerts import Alert, Delivery, Letter

_LETTERS, _DUE, _TAKEN = "ggen:letters", "ggen:letters:due", "ggen:letters:taken"
_TOLD_FOR_S = 7 * 24 * 3600
_MOST = 10_000
"""Letters kept; what comes beyond is in the log and in the ledger."""

_TAKEN_KEPT = 100

_POST = f"""{NOW}
if redis.call('HLEN', KEYS[1]) >= {_MOST} then return end
if not redis.call('SET', KEYS[3], 1, 'NX', 'EX', {_TOLD_FOR_S}) then return end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])"""
_TAKE = f"""{NOW}
local found = {{}}
-- Later than any rest: the clock was set back since.
local due = redis.call('ZRANGE', KEYS[2], 0, now, 'BYSCORE', 'LIMIT', 0, ARGV[1])
if #due == 0 then
  due = redis.call('ZRANGE', KEYS[2], now + 900000, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1])
end
for _, id in ipairs(due) do
  redis.call('ZADD', KEYS[2], now + ARGV[2], id)
  found[#found + 1] = redis.call('HGET', KEYS[1], id)
end
return found"""
_AGAIN = f"""{NOW}
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])"""

_DELIVERED = f"""{NOW}
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('LPUSH', KEYS[3], string.format('%.0f', now) .. ' ' .. ARGV[2])
redis.call('LTRIM', KEYS[3], 0, {_TAKEN_KEPT - 1})"""
_DELIVERIES = f"""{NOW}
local found = {{string.format('%.0f', now)}}
for _, text in ipairs(redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  found[#found + 1] = text
end
return found"""


class ValkeyOutbox(Connected):
    """See ``ports.alerts.Outbox`` for what it promises."""

    def post(self, letter: Letter) -> None:
        keys = [_LETTERS, _DUE, f"ggen:letter:{letter.letter_id}"]
        self._script(_POST, keys, [letter.letter_id, _text(letter)])

    def take_letters(self, limit: int, hold_s: float) -> list[Letter]:
        found = self._script(_TAKE, [_LETTERS, _DUE], [limit, round(hold_s * 1000)])
        return [_letter(text) for text in found if text]

    def delivered(self, letter: Letter) -> None:
        keys = [_LETTERS, _DUE, _TAKEN]
        self._script(_DELIVERED, keys, [letter.letter_id, _text(letter)])

    def deliveries(self, limit: int) -> list[Delivery]:
        now, *found = self._script(_DELIVERIES, [_TAKEN], [limit])
        lines = [text.split(" ", 1) for text in found]
        return [Delivery(_letter(text), (int(now) - int(at)) / 1000) for at, text in lines]

    def not_delivered(self, letter: Letter, fault: str, again_in_s: float) -> None:
        tried = Letter(letter.alert, letter.address, letter.attempts + 1, fault)
        values = [letter.letter_id, _text(tried), round(again_in_s * 1000)]
        self._script(_AGAIN, [_LETTERS, _DUE], values)

    def undelivered(self, limit: int) -> list[Letter]:
        found = [_letter(text) for text in bounded(lambda: self._redis.hvals(_LETTERS))]
        return [letter for letter in found if letter.attempts][:limit]


def _text(letter: Letter) -> str:
    return json.dumps(asdict(letter))


def _letter(text: str) -> Letter:
    fields = json.loads(text)
    return Letter(**{**fields, "alert": Alert(**fields["alert"])})
