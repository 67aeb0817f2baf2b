"""Actions for measurements: one does nothing, one blocks in a chosen way.

No installation registers them: ``bench.stack`` does, for its own stack.
"""

import json
import os
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel

from config.settings import load
from ggen_governor import ActionContext, action

FILE = "bench-actions.jsonl"
WAYS = ("sleep", "loop", "socket", "tls", "sqlite")
_FOREVER_S = 60


class Nothing(BaseModel):
    """No payload."""


class Block(BaseModel):
    """The call in which a handler blocks."""

    by: Literal["sleep", "loop", "socket", "tls", "sqlite"]


@action("bench.noop", payload=Nothing)
def noop(_context: ActionContext, _payload: Nothing) -> None:
    """Does nothing."""


@noop.rollback
def _nothing_undone(_context: ActionContext, _payload: Nothing) -> None:
    """There is nothing to undo."""


class Wait(BaseModel):
    """How long a handler waits for something."""

    seconds: float


@action("bench.wait", payload=Wait, undo=None)
def wait(_context: ActionContext, payload: Wait) -> None:
    """Waits, as a slow outside service would."""
    time.sleep(payload.seconds)


@action("bench.block", payload=Block)
def block(context: ActionContext, payload: Block) -> None:
    """Block until the deadline ends the handler."""
    started = time.monotonic()
    try:
        _STAND_STILL[payload.by]()
    finally:
        ended = time.monotonic()
        _note(context.action_id, by=payload.by, started=started, ended=ended)


@block.rollback
def _nothing_to_move(context: ActionContext, _payload: Block) -> None:
    _note(context.action_id, rolled_back=time.monotonic())


def _note(action_id: str, **seen: object) -> None:
    fd = os.open(load().state_dir / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, json.dumps({"action_id": action_id, **seen}).encode() + b"\n")
    os.close(fd)


def _loop() -> None:
    count = 0
    while True:
        count += 1


def _socket() -> None:
    silent, other = socket.socketpair()
    with silent, other:
        silent.recv(1)


def _tls() -> None:
    """A handshake with a server that says nothing."""
    silent, other = socket.socketpair()
    with (
        other,
        ssl.create_default_context().wrap_socket(
            silent, server_hostname="localhost", do_handshake_on_connect=False
        ) as secured,
    ):
        secured.do_handshake()


def _sqlite() -> None:
    """A query that never ends, in short steps: SQLite itself cannot be interrupted."""
    database = sqlite3.connect(":memory:")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    for _row in database.execute(endless):
        pass


_STAND_STILL: dict[str, Callable[[], object]] = {
    "sleep": lambda: time.sleep(_FOREVER_S),
    "loop": _loop,
    "socket": _socket,
    "tls": _tls,
    "sqlite": _sqlite,
}
