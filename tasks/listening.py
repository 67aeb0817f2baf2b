"""A worker's parent listens for versions of policies from when it is ready until it stops."""

from typing import Any

from celery.signals import worker_ready, worker_shutdown

from adapters import wiring
from config.settings import load
from tasks.governors.listener import Listener

_LISTENERS: list[Listener] = []


@worker_ready.connect
def _listen(sender: Any, **_: object) -> None:
    if _LISTENERS:
        return  # it is ready again: the broker was away
    role = str(sender.hostname).partition("@")[0]
    children = int(sender.controller.concurrency or 0)
    listener = Listener(wiring.ports(), role, wiring.open_hearing(load()), children)
    _LISTENERS.append(listener)
    listener.start()


@worker_shutdown.connect
def _stop(**_: object) -> None:
    while _LISTENERS:
        _LISTENERS.pop().stop()
