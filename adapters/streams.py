"""Signals on Valkey streams: a stream per tenant; the pump plays the part of Pub/Sub's push."""

import redis

from adapters.valkey import Connected, bounded
from governor.errors import InputError
from governor.records import topic_name

GROUP = "governor"
TOPICS = "ggen:topics"
MAX_MESSAGE_BYTES = 64 * 1024


def stream_key(account_id: str) -> str:
    """The stream behind a tenant's topic."""
    return f"ggen:stream:{topic_name(account_id)}"


class StreamSignals(Connected):
    """See ``ports.signals.Signals`` for what it promises."""

    def create(self, account_id: str) -> bool:
        def make() -> bool:
            try:
                self._redis.xgroup_create(stream_key(account_id), GROUP, id="0", mkstream=True)
                made = True
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                made = False
            self._redis.sadd(TOPICS, account_id)
            return made

        return bounded(make)

    def exists(self, account_id: str) -> bool:
        key = stream_key(account_id)
        return bounded(
            lambda: bool(
                self._redis.sismember(TOPICS, account_id)
                and self._redis.exists(key)
                and any(g["name"] == GROUP for g in self._redis.xinfo_groups(key))
            )
        )

    def delete(self, account_id: str) -> None:
        def remove() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.srem(TOPICS, account_id).delete(stream_key(account_id)).execute()

        bounded(remove)

    def publish(self, account_id: str, message: bytes) -> str:
        if len(message) > MAX_MESSAGE_BYTES:
            raise InputError("message-too-large", f"a message is at most {MAX_MESSAGE_BYTES} bytes")
        # NOMKSTREAM: publishing never makes a topic.
        made = bounded(
            lambda: self._redis.xadd(stream_key(account_id), {"data": message}, nomkstream=True)
        )
        if made is None:
            raise InputError("no-such-topic", f"there is no topic {topic_name(account_id)}")
        return str(made)

    def backlog(self, account_id: str) -> int:
        return int(bounded(lambda: self._redis.xlen(stream_key(account_id))))
