"""Signals on Valkey streams: a stream per tenant; the pump plays the part of Pub/Sub's push."""

from collections.abc import Sequence
from datetime import UTC, datetime

import redis

from adapters.valkey.connection import Connected, bounded
from governor.errors import ConflictError, InputError, OutageError
from governor.paths import topic_name
from ports.signals import MAX_MESSAGE_BYTES, DeadLetter, Topic, Waiting

GROUP = "governor"
TOPICS = "ggen:topics"


def stream_key(account_id: str) -> str:
    """The stream behind a tenant's topic."""
    return f"ggen:stream:{topic_name(account_id)}"


class StreamSignals(Connected):
    """See ``ports.signals.Signals`` for what it promises."""

    def look(self, account_id: str, region: str) -> Topic:
        key = stream_key(account_id)

        def found() -> Topic:
            kind = self._redis.type(key)
            is_listed = bool(self._redis.sismember(TOPICS, account_id))
            if kind == "none":
                return Topic.DAMAGED if is_listed else Topic.ABSENT
            if kind != "stream":
                return Topic.FOREIGN
            has_group = any(g["name"] == GROUP for g in self._redis.xinfo_groups(key))
            return Topic.READY if is_listed and has_group else Topic.DAMAGED

        return bounded(found)

    def create(self, account_id: str, region: str) -> None:
        key = stream_key(account_id)

        def make() -> None:
            try:
                self._redis.xgroup_create(key, GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "WRONGTYPE" in str(error):
                    raise ConflictError(
                        "topic-misconfigured",
                        f"{topic_name(account_id)} exists and is no topic of ours; it was left as "
                        f"it is. Look at the key {key}, and remove it if it is not needed",
                    ) from error
                if "BUSYGROUP" not in str(error):
                    raise
            self._redis.sadd(TOPICS, account_id)

        bounded(make)

    def delete(self, account_id: str) -> None:
        def remove() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.srem(TOPICS, account_id).delete(stream_key(account_id)).execute()

        bounded(remove)

    def stop_pushing(self, account_id: str) -> None:
        bounded(lambda: self._redis.srem(TOPICS, account_id))

    @property
    def lets_rest(self) -> bool:
        return False

    def take(self, account_id: str, limit: int) -> list[Waiting]:
        # What was delivered is removed, so that whatever is there waits, pushed before or not.
        found = bounded(
            lambda: self._redis.execute_command(
                "XRANGE", stream_key(account_id), "-", "+", "COUNT", limit, NEVER_DECODE=True
            )
        )
        return [
            Waiting(name.decode(), fields.get(b"data", b""), name.decode())
            for name, fields in found
        ]

    def drop(self, account_id: str, messages: Sequence[Waiting]) -> None:
        names = [each.handle for each in messages]

        def remove() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                key = stream_key(account_id)
                pipe.xack(key, GROUP, *names).xdel(key, *names).execute()

        if names:
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

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        return []  # the pump never gives a message up

    def bury(self, letter: DeadLetter) -> None:
        pass

    def backlog_then(self, account_id: str) -> tuple[int, datetime]:
        return self.backlog(account_id), datetime.now(UTC)

    def backlog(self, account_id: str) -> int:
        """What the group was not given yet, and what it has not acknowledged."""
        try:
            groups = bounded(lambda: self._redis.xinfo_groups(stream_key(account_id)))
        except OutageError as error:
            if "no such key" in error.detail:
                return 0
            raise
        found = next((group for group in groups if group["name"] == GROUP), None)
        if found is None or found["lag"] is None:
            detail = "Valkey cannot tell how much of a topic waits: some of it was removed unread"
            raise OutageError("lag-unknown", detail, 60)
        return int(found["lag"]) + int(found["pending"])
