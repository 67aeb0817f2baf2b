"""A bounded connection to Valkey (or Redis), opened on first use.

Every verb built on it may be repeated safely, so one lost connection is retried at once (a
restarted server); a call is bounded to ``TIMEOUT_S``. A refusal may then be counted twice.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from governor.errors import OutageError

TIMEOUT_S = 1.0
_ON_DISK_WITHIN_S, _ASK_FOR_MS = 5.0, 500
"""How long Valkey may take to write a command to its disk; it does so once a second."""

T = TypeVar("T")
NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)"""
"""The beginning of a script that asks for the server's time, in milliseconds."""


def client(url: str, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """A connection pool that fails in bounded time and retries one lost connection."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def bounded(call: Callable[[], T]) -> T:
    """Run one exchange with Valkey; whatever keeps it from answering is an OutageError."""
    try:
        return call()
    except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError) as error:
        detail = f"Valkey does not answer: {type(error).__name__}"
        raise OutageError("memory-unavailable", detail, retry_after_s=2) from error
    except redis.RedisError as error:
        raise OutageError("memory-unavailable", f"Valkey refused: {error}", 2) from error
    except ValueError as error:
        # redis-py: the connection was closed by its own timeout, and its buffer is looked at still
        if "closed file" not in str(error):
            raise
        raise OutageError("memory-unavailable", "Valkey does not answer in time", 2) from error
    except OSError as error:  # no file descriptor is left for a new connection
        raise OutageError("memory-unavailable", f"no connection to Valkey: {error}", 2) from error


class Connected:
    """A client opened on first use. A forked child opens its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._held: tuple[int, Any] | None = None
        self._scripts: dict[str, Any] = {}
        self._answered_s = 0.0

    @property
    def _redis(self) -> Any:
        if self._held is None or self._held[0] != os.getpid():
            self._held, self._scripts = (os.getpid(), client(self._url)), {}
        return self._held[1]

    def close(self) -> None:
        """Let go of every connection of this process."""
        if self._held and self._held[0] == os.getpid():
            self._held[1].close()
        self._held = None

    def _script(self, text: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
        script = self._known(text)
        answer = bounded(lambda: script(keys=keys, args=values))
        self._answered_s = time.monotonic()
        return answer

    def _script_each(self, text: str, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """What a script gives for each keys and values, in order, all sent at once.

        Raises:
            OutageError: it may have run for any of them.
        """
        if len(calls) == 1:
            return [self._script(text, *calls[0])]
        script = self._known(text)

        def ask() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for keys, values in calls:
                    pipe.evalsha(script.sha, len(keys), *keys, *values)
                return list(pipe.execute(raise_on_error=False))

        answers = bounded(ask)
        for n, answer in enumerate(answers):
            if isinstance(answer, redis.exceptions.NoScriptError):  # the server is a new one
                answers[n] = self._script(text, *calls[n])
            elif isinstance(answer, redis.RedisError):
                raise OutageError("memory-unavailable", f"Valkey refused: {answer}", 2) from answer
        self._answered_s = time.monotonic()
        return answers

    def _known(self, text: str) -> Any:
        connection = self._redis
        if text not in self._scripts:
            self._scripts[text] = connection.register_script(text)
        return self._scripts[text]

    def answered_s(self) -> float:
        """See ``ports.memory.Memory``."""
        return self._answered_s

    def _written_down(self, text: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
        """What a script that writes gives, once this and all before it is on the server's disk.

        A server without an append-only file, or older than Redis 7.2, has no such moment: there it
        is as durable as that server is. One that does not wait for its disk has handed it over.

        Raises:
            OutageError: it was not written down within seconds; the script's work is done.
        """
        give_up_at = time.monotonic() + _ON_DISK_WITHIN_S
        while True:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(text, len(keys), *keys, *values).waitaof(1, 0, _ASK_FOR_MS)
                told, on_disk = bounded(lambda: pipe.execute(raise_on_error=False))
            if isinstance(told, redis.RedisError):
                raise OutageError("memory-unavailable", f"Valkey refused: {told}", 2) from told
            if isinstance(on_disk, redis.ResponseError) or on_disk[0]:
                return told
            if time.monotonic() > give_up_at:
                if self._is_with_the_system():
                    return told
                raise OutageError("memory-unavailable", "Valkey does not write to its disk", 5)

    def _is_with_the_system(self) -> bool:
        """Whether the server has handed all to its operating system, which keeps it in a crash.

        Under ``appendfsync no`` the server never waits for the disk, and has no later moment.
        """
        state = bounded(lambda: self._redis.info("persistence"))
        is_written = state.get("aof_last_write_status", "ok") == "ok"
        waits = int(state.get("aof_buffer_length", 0)) + int(state.get("aof_pending_bio_fsync", 0))
        return is_written and not waits
