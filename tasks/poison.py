"""Poison messages: what lies on the broker and is no message is set aside and alerted.

kombu raises in the worker's main process, the worker dies, and the message comes back for ever.
"""

import hashlib
import logging
from typing import Any

import kombu.transport
from celery import current_app
from kombu.transport import redis as redis_transport
from kombu.utils.json import dumps, loads

ASIDE = "ggen:aside"
"""The list of the broker's database where what was set aside is kept, as it was."""

_MOST_KEPT = 1000
_LOG = logging.getLogger("ggen.broker")


def _read(text: str) -> Any:
    """A message's content, parsed; where its text is no JSON, the text itself."""
    try:
        return loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _is_message(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and isinstance(raw.get("properties"), dict)
        and isinstance(raw.get("headers"), dict)
        and isinstance(raw["properties"].get("delivery_info"), dict)
        and isinstance(raw["properties"].get("delivery_tag"), str)
        and isinstance(raw.get("body"), str)
    )


class Transport(redis_transport.Transport):
    """kombu's Redis transport, which survives poison messages."""

    def _deliver(self, message: Any, queue: Any) -> None:
        try:
            if _is_message(message):
                super()._deliver(message, queue)
                return
        except (KeyError, TypeError, AttributeError, ValueError):
            _LOG.exception("a message on queue %s cannot be read", queue)
        text = dumps(message)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        _LOG.error("queue %s held what is no message (%s); it lies in %s", queue, digest, ASIDE)
        channel: Any = next(iter(self.channels or ()))
        with channel.conn_or_acquire() as client:
            client.lpush(ASIDE, text)
            client.ltrim(ASIDE, 0, _MOST_KEPT - 1)
        # Not here: a worker's main process touches no store.
        current_app.send_task("troubles.poison", (queue, digest), queue="ledger")


def install() -> None:
    """Have every ``redis://`` broker of this process survive."""
    redis_transport.loads = _read  # type: ignore[attr-defined]
    for scheme in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[scheme] = "tasks.poison:Transport"
