"""Troubles in Valkey: see ``ports.health.Troubles``. One hash; each entry says when it ends."""

import json

from adapters.valkey.connection import NOW, Connected, bounded
from ports.health import Trouble

_TROUBLES = "ggen:troubles"
_NOTE = f"""{NOW}
local former = redis.call('HGET', KEYS[1], ARGV[1])
local known = former and cjson.decode(former)
if known and tonumber(known.till) < now then known = nil end
local since, count = known and known.since or now, known and known.count + 1 or 1
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({{
  detail = ARGV[2], blocks = ARGV[3], since = since, count = count, till = now + ARGV[4]}}))
return known and 0 or 1"""
_LIST = f"""{NOW}
local found = {{}}
local all = redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
  if tonumber(cjson.decode(all[n + 1]).till) < now then redis.call('HDEL', KEYS[1], all[n])
  else found[#found + 1] = all[n]; found[#found + 1] = all[n + 1] end
end
return {{string.format('%d', now), found}}"""


class ValkeyTroubles(Connected):
    """See ``ports.health.Troubles`` for what it promises."""

    def note_trouble(self, name: str, detail: str, *, blocks: bool, seconds: float) -> bool:
        values = [name, detail, int(blocks), round(seconds * 1000)]
        return bool(self._script(_NOTE, [_TROUBLES], values))

    def end_trouble(self, name: str) -> None:
        bounded(lambda: self._redis.hdel(_TROUBLES, name))

    def troubles(self) -> list[Trouble]:
        now_ms, found = self._script(_LIST, [_TROUBLES], [])
        named = zip(found[::2], map(json.loads, found[1::2]), strict=True)
        return sorted(
            (
                Trouble(
                    name,
                    known["detail"],
                    known["blocks"] == "1",
                    (int(now_ms) - known["since"]) / 1000,
                    known["count"],
                )
                for name, known in named
            ),
            key=lambda trouble: trouble.name,
        )
