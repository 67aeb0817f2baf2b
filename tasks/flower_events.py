"""Live events, published in batches: what Flower shows may be a fifth of a second old.

Celery publishes what happened to its tasks after each turn of the worker's loop: under a steady
load one message for every change, and a third of the worker's own time.
"""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

TELL_EVERY_S = 0.2


class TellInBatches(bootsteps.StartStopStep):
    """Has a worker's event dispatcher flush what it buffered at leisure; by size Celery does."""

    requires = (Events,)

    def start(self, parent: Any) -> None:
        """Called at every connection, when the dispatcher is a new one."""
        dispatcher, hub = parent.event_dispatcher, parent.hub
        if dispatcher is None or hub is None:
            return
        is_due = False

        def flush() -> None:
            nonlocal is_due
            is_due = False
            dispatcher.flush()

        def soon() -> None:
            nonlocal is_due
            if not is_due:
                is_due = True
                hub.call_later(TELL_EVERY_S, flush)

        dispatcher.on_send_buffered = soon
