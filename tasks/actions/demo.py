"""The demo actions, one for each way an action can end (D22).

Each notes its starts, ends and rollbacks in the state directory's ``demo-actions.jsonl``, so that
a check can count what really happened, whatever the receipts say.
"""

import errno
import hashlib
import json
import os
import time

from pydantic import BaseModel, Field

from config.settings import load
from ggen_governor import ActionContext, action
from governor.errors import RecoverableError, UnrecoverableError


class Nothing(BaseModel):
    """No payload, or one that the handler ignores."""


class Sleep(BaseModel):
    """How long to sleep."""

    seconds: float = Field(ge=0, le=3600)


class Fail(BaseModel):
    """Whether the failure can be undone."""

    recoverable: bool


class RollbackFails(BaseModel):
    """How many times the rollback fails before it works."""

    times: int = Field(ge=0, le=100)


def _note(context: ActionContext, event: str) -> None:
    line = {"action_id": context.action_id, "event": event, "monotonic": time.monotonic()}
    text = json.dumps(line).encode() + b"\n"
    # One write to an O_APPEND file: lines of several processes never mix.
    fd = os.open(load().demo_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.write(fd, text) < len(text):
            raise OSError(errno.ENOSPC, "the disk is full: a note is cut off")
    finally:
        os.close(fd)


def _undone(context: ActionContext, _payload: BaseModel) -> None:
    _note(context, "rolled_back")


@action("demo.succeed", payload=Nothing)
def succeed(context: ActionContext, _payload: Nothing) -> None:
    """Ends well at once."""
    _note(context, "start")
    _note(context, "end")


@action("demo.sleep", payload=Sleep)
def sleep(context: ActionContext, payload: Sleep) -> None:
    """Waits, as a slow outside service would."""
    _note(context, "start")
    try:
        time.sleep(payload.seconds)
    finally:
        _note(context, "end")


@action("demo.fail", payload=Fail)
def fail(context: ActionContext, payload: Fail) -> None:
    """Fails, and says whether it can be undone."""
    _note(context, "start")
    try:
        kind = RecoverableError if payload.recoverable else UnrecoverableError
        raise kind("DEMO_FAILURE", "this action fails on purpose")
    finally:
        _note(context, "end")


@action("demo.swallow", payload=Nothing)
def swallow(context: ActionContext, _payload: Nothing) -> None:
    """Swallows every exception on the way, its deadline's too; the hard limit ends it."""
    _note(context, "start")
    try:
        end_at = time.monotonic() + 10
        while time.monotonic() < end_at:
            try:
                time.sleep(max(0.0, end_at - time.monotonic()))
            except BaseException:  # noqa: S112  # swallowing is what this one is for
                continue
    finally:
        _note(context, "end")


@action("demo.spin", payload=Nothing)
def spin(context: ActionContext, _payload: Nothing) -> None:
    """Stays in C code, where no signal is looked at, for minutes."""
    _note(context, "start")
    try:
        hashlib.pbkdf2_hmac("sha256", b"demo", b"spin", 2**31 - 1)
    finally:
        _note(context, "end")


@action("demo.rollback_fails", payload=RollbackFails)
def rollback_fails(context: ActionContext, _payload: RollbackFails) -> None:
    """Fails recoverably; its rollback fails ``times`` times."""
    _note(context, "start")
    try:
        raise RecoverableError("DEMO_FAILURE", "this action fails on purpose")
    finally:
        _note(context, "end")


@rollback_fails.rollback
def _fails_first(context: ActionContext, payload: RollbackFails) -> None:
    tries = load().state_dir / "demo-rollbacks" / context.action_id
    tries.parent.mkdir(exist_ok=True)
    with tries.open("ab") as file:
        file.write(b".")
    if tries.stat().st_size <= payload.times:
        raise RecoverableError("DEMO_ROLLBACK_FAILURE", "this rollback fails on purpose")
    _note(context, "rolled_back")


for _handler in (succeed, sleep, fail, swallow, spin):
    _handler.rollback(_undone)
