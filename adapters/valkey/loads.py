"""Loads in Valkey: see ``ports.loads``. ``ggen:load:…`` counts; the scripts of slots write it.

``ggen:pressed`` orders who is looked at by the moment of the last look.
"""

from adapters.valkey.connection import NOW, Connected, bounded
from ports.loads import Load

PRESSED = "ggen:pressed"
_WAITS_FOR_MS, _SAMPLES_FOR_S = 120_000, 600
_PUSHED_BACK = f"""{NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - {_WAITS_FOR_MS})
return redis.call('ZCARD', KEYS[1])"""
_SEEN = f"""{NOW}
redis.call('ZADD', KEYS[1], 'XX', now, ARGV[1])"""
_NOTE_SAMPLE = f"""
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -ARGV[2], -1)
redis.call('EXPIRE', KEYS[1], {_SAMPLES_FOR_S})"""


class ValkeyLoads(Connected):
    """See ``ports.loads.Loads`` for what it promises."""

    def press(self, account_id: str, entitlement_id: str) -> None:
        place = f"{account_id}/{entitlement_id}"
        bounded(lambda: self._redis.zadd(PRESSED, {place: 0}, nx=True))

    def pressed(self, limit: int) -> list[tuple[str, str]]:
        found = bounded(lambda: self._redis.zrange(PRESSED, 0, limit - 1))
        return [
            (account, entitlement) for account, _, entitlement in (p.partition("/") for p in found)
        ]

    def any_pressed(self) -> bool:
        return bool(bounded(lambda: self._redis.exists(PRESSED)))

    def looked_at(self, account_id: str, entitlement_id: str) -> None:
        self._script(_SEEN, [PRESSED], [f"{account_id}/{entitlement_id}"])

    def rest(self, account_id: str, entitlement_id: str) -> None:
        bounded(lambda: self._redis.zrem(PRESSED, f"{account_id}/{entitlement_id}"))

    def load(self, account_id: str, entitlement_id: str) -> Load:
        place = f"{account_id}/{entitlement_id}"

        def read() -> Load:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(f"ggen:load:{place}").scard(f"ggen:inflight:{place}")
                counts, in_flight = pipe.execute()
            return Load(**{name: int(n) for name, n in counts.items()}, in_flight=in_flight)

        return bounded(read)

    def pushed_back(self, account_id: str) -> int:
        return int(self._script(_PUSHED_BACK, [f"ggen:pushed_back:{account_id}"], []))

    def note_sample(self, account_id: str, entitlement_id: str, sample: str, kept: int) -> None:
        name = f"ggen:samples:{account_id}/{entitlement_id}"
        self._script(_NOTE_SAMPLE, [name], [sample, kept])

    def samples(self, account_id: str, entitlement_id: str) -> list[str]:
        name = f"ggen:samples:{account_id}/{entitlement_id}"
        return list(bounded(lambda: self._redis.lrange(name, 0, -1)))

    def busy(self) -> int:
        return int(bounded(lambda: self._redis.hlen("ggen:claims")))
