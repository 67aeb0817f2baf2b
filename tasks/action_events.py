"""Each action as a task of its own in Flower, though one message serves many.

The child that carries an action out says what Celery's parent would say of a message: received,
started, and how it ended. Events of short actions go in batches. Those of an action that may last
go before it begins. Where its process was killed, the reaper says how it ended.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Self

from celery import current_task
from celery.events import EventDispatcher
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from governor.actions import Action
from ports.dispatch import Turn
from tasks.celery import app
from tasks.flower_events import TELL_EVERY_S
from tasks.outcomes import Ending, NotDone, Outcome
from tasks.publish import shown

_TASK = "execute_action.run"
_SILENT_S = 1.0
_WITHIN_S = 0.5
"""How long a broker that stands still may hold up a process that has actions to carry out."""

_AT_MOST = 200
"""How many events one batch has."""


class ActionEvents:
    """Events of one process; a broker that is away costs them, and nothing else."""

    _mine: "tuple[int, Self] | None" = None

    def __init__(self, hostname: str) -> None:
        self._dispatcher: Any = EventDispatcher(
            app.connection_for_write(transport_options={"socket_timeout": _WITHIN_S}),
            hostname=hostname,
            app=app,
            buffer_group=["task"],
            buffer_while_offline=False,
            buffer_limit=10 * _AT_MOST,
        )
        self._told_s, self._silent_until_s = time.monotonic(), 0.0

    @classmethod
    def of_this_process(cls, hostname: str) -> Self:
        """The one of this process; a forked child has its own connection."""
        if cls._mine is None or cls._mine[0] != os.getpid():
            cls._mine = os.getpid(), cls(hostname)
        return cls._mine[1]

    def begun(self, action: Action, turn: Turn) -> None:
        """An action is about to be carried out."""
        told = {"uuid": action.action_id, "root_id": action.action_id, "parent_id": None}
        self._send("task-received", **told, name=_TASK, args="()", kwargs=repr(shown(action)))
        self._send("task-started", uuid=action.action_id)
        if not turn.is_short:
            self.flush()

    def ended(self, action: Action, outcome: Outcome) -> None:
        """What came of it; its runtime is its handler's."""
        named = {"uuid": action.action_id, "runtime": outcome.run_s}
        match outcome.ending:
            case Ending.FAILED:
                error = outcome.failure(outcome.why)
                self._send("task-failed", **named, exception=repr(error), traceback=None)
            case Ending.PUT_OFF:
                error = NotDone(outcome.why)
                self._send("task-retried", **named, exception=repr(error), traceback=None)
            case _:
                self._send("task-succeeded", **named, result=repr(str(outcome.ending)))
        if time.monotonic() - self._told_s > TELL_EVERY_S:
            self.flush()

    @classmethod
    def ended_elsewhere(cls, action: Action, outcome: Outcome) -> None:
        """What came of an action whose own process cannot tell it any more; at once."""
        request = getattr(current_task, "request", None)
        if request is not None and request.hostname:
            mine = cls.of_this_process(request.hostname)
            mine.begun(action, Turn(None, is_short=True))
            mine.ended(action, outcome)
            mine.flush()

    def flush(self) -> None:
        """Send the buffered events."""
        self._told_s = time.monotonic()
        if self._told_s >= self._silent_until_s:
            self._try(self._dispatcher.flush)

    def _send(self, kind: str, **fields: object) -> None:
        if time.monotonic() >= self._silent_until_s:
            self._try(lambda: self._dispatcher.send(kind, **fields))

    def _try(self, tell: Callable[[], object]) -> None:
        """A broker that does not answer is left alone for a while, and its events are lost."""
        try:
            tell()
        except (OperationalError, RedisError, OSError):
            self._dispatcher._group_buffer.clear()
            self._silent_until_s = time.monotonic() + _SILENT_S
