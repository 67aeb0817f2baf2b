"""Measures in Valkey: see ``ports.measures``. Two hashes and a list."""

from collections.abc import Mapping, Sequence

from adapters.valkey.connection import Connected, bounded

_MEASURED, _STATES, _ENDED = "ggen:measured", "ggen:states", "ggen:untraced"
_KEPT = 100_000
"""How many receipts wait for their traces to be exported, at most."""


class ValkeyMeasures(Connected):
    """See ``ports.measures.Measures`` for what it promises."""

    def measure(self, counts: Mapping[str, int]) -> None:
        def add() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                for name, count in counts.items():
                    pipe.hincrby(_MEASURED, name, count)
                pipe.execute()

        bounded(add)

    def measured(self) -> Mapping[str, int]:
        return _numbers(bounded(lambda: self._redis.hgetall(_MEASURED)))

    def note_states(self, states: Mapping[str, int]) -> None:
        bounded(lambda: self._redis.hset(_STATES, mapping=dict(states)))

    def note_ended(self, receipts: Sequence[str]) -> None:
        def add() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(_ENDED, *receipts).ltrim(_ENDED, -_KEPT, -1).execute()

        bounded(add)

    def ended(self, limit: int) -> list[str]:
        return list(bounded(lambda: self._redis.lrange(_ENDED, 0, limit - 1)))

    def forget_ended(self, receipts: Sequence[str]) -> None:
        def forget() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                for each in receipts:
                    pipe.lrem(_ENDED, 1, each)
                pipe.execute()

        bounded(forget)

    def states(self) -> Mapping[str, int]:
        return _numbers(bounded(lambda: self._redis.hgetall(_STATES)))


def _numbers(found: Mapping[str, str]) -> dict[str, int]:
    return {name: int(count) for name, count in found.items()}
