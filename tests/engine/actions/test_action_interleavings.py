"""Two actions, many processes: messages, servers of the list, redeliveries, undos, the reaper, deaths, time, at random.

Every process stops before each call to a store, and in the middle of the handler, until it is told
to go on; Hypothesis decides who goes on, who dies, and when time passes. Whatever the order, there
is one outcome, the receipts tell it, and no rollback ever ran beside its handler.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import select
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ggen_governor.handlers import ActionContext, action
from governor.errors import RecoverableError, UnrecoverableError
from governor.fsm import ActionState
from ports import Ports
from ports.slots import Slot
from tasks.actions import dispatch, reap
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tasks.governors import policies
from tests.engine.conftest import event
from tests.support.actions import action_of, receipts
from tests.support.runs import subscribe

PLAY, SKU = "test.play", "play-sku"
LIMIT_MS = 33_150
"""The hard limit of its actions: 150 ms, 30 s to undo, 3 s."""
FORK = multiprocessing.get_context("fork")
NUMBERS = itertools.count()
_here: "Gate | None" = None


class Gate:
    """Where a process waits for leave to go on; open for good once the test lets go of it."""

    def __init__(self) -> None:
        self._arrived, self._arrive = os.pipe()
        self._wait, self._go = os.pipe()

    def pass_through(self) -> None:
        os.write(self._arrive, b".")
        os.read(self._wait, 1)

    def open_once(self) -> None:
        """Let the process go on to where it stops next, if that comes soon."""
        os.write(self._go, b".")
        if select.select([self._arrived], [], [], 0.02)[0]:
            os.read(self._arrived, 1)

    def open(self) -> None:
        os.close(self._go)

    def become_child(self) -> None:
        os.close(self._go)

    def close(self) -> None:
        for fd in (self._arrived, self._arrive, self._wait):
            os.close(fd)


class Gated:
    """A port whose every call passes a gate first."""

    def __init__(self, inner: object, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._gate.pass_through()
            return found(*args, **kwargs)

        return call


class Hasty(Gated):
    """A Memory that takes every handler for a short one: ends and claims are committed together."""

    def take(self, *args: Any, **kwargs: Any) -> Any:
        self._gate.pass_through()
        return dataclasses.replace(self._inner.take(*args, **kwargs), is_short=True)  # type: ignore[attr-defined]

    def wait(self, *_args: Any) -> None:
        self._gate.pass_through()


class SharedClock:
    """The real clock, ahead by what the test says, for all processes."""

    def __init__(self, ports: Ports) -> None:
        # Without a lock: a process that is killed while it holds it would hang all others.
        self._inner, self.ahead_s = ports.clock, FORK.RawValue("d", 0.0)

    def now(self) -> datetime:
        return self._inner.now() + timedelta(seconds=self.ahead_s.value)

    def monotonic_s(self) -> float:
        return self._inner.monotonic_s()

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class Play(BaseModel):
    """How the handler ends, unless its time is up before."""

    ends: Literal["well", "recoverably", "for good"]
    undo_fails: int


@action(PLAY, payload=Play)
def play(context: ActionContext, payload: Play) -> None:
    """Stops half-way; ends as told."""
    try:  # its time may be up before it has noted that it began
        _note(context, "start")
        if _here:
            _here.pass_through()
        if payload.ends == "recoverably":
            raise RecoverableError("TEST", "as told")
        if payload.ends == "for good":
            raise UnrecoverableError("TEST", "as told")
    finally:
        _note_surely(context, "end")


@play.rollback
def _undo(context: ActionContext, payload: Play) -> None:
    seen = _notes(context.action_id)
    for begun, over in (("start", "end"), ("undo", "undo over")):
        ended = Counter(each["pid"] for each in seen if each["event"] == over)
        started = Counter(each["pid"] for each in seen if each["event"] == begun)
        if any(not _is_gone(pid) for pid in started - ended):
            _note(context, f"an undo beside {begun}")
    _note(context, "undo")
    try:
        if _here:
            _here.pass_through()
        if sum(each["event"] == "undo" for each in seen) < payload.undo_fails:
            raise RecoverableError("TEST", "not this time")
    finally:
        _note(context, "undo over")


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _file(action_id: str) -> Path:
    return Path(os.environ["GGEN_STATE_DIR"], f"play-{action_id}")


def _note(context: ActionContext, told: str) -> None:
    fd = os.open(_file(context.action_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, json.dumps({"event": told, "pid": os.getpid()}).encode() + b"\n")
    os.close(fd)


def _note_surely(context: ActionContext, told: str) -> None:
    """Note it though the deadline comes in the middle: a handler that is over is no handler."""
    try:
        _note(context, told)
    except BaseException:
        _note(context, told)
        raise


def _notes(action_id: str) -> list[dict[str, Any]]:
    file = _file(action_id)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def playing(ports: Ports) -> Ports:
    policy = {
        "sku_id": SKU,
        "plan_type": "starter",
        "policy_version": "1.0.0",
        "quota": {"monthly_actions": 100_000},
        "actions": {PLAY: {"handler": PLAY, "timeout_ms": 150, "rollback_timeout_ms": 30_000}},
        "signals": {PLAY: PLAY},
        "permissions": [PLAY],
    }
    policies.register(ports, json.dumps(policy).encode())
    subscribe(ports, event(sku_id=SKU))
    return dataclasses.replace(ports, clock=SharedClock(ports))


class Crowd:
    """The processes at two actions."""

    def __init__(self, ports: Ports, action_ids: list[str]) -> None:
        self._ports, self._action_ids = ports, action_ids
        self._members: list[tuple[Any, Gate]] = []

    def start(self, what: str) -> None:
        gate = Gate()
        self._ports.documents.close()  # SQLite must not be open when a process forks
        if what == "reaper":
            for action_id in self._action_ids:
                self._ports.memory.look_again(Slot("acme", SKU, action_id), -1)
        member = FORK.Process(target=self._live, args=(gate, what))
        member.start()
        self._members.append((member, gate))

    def go_on(self, n: int, times: int) -> None:
        if not (living := [(m, g) for m, g in self._members if m.is_alive()]):
            return
        member, gate = living[-1 - n % len(living)]
        for _ in range(times):
            if member.is_alive():
                gate.open_once()

    def kill(self, n: int) -> None:
        if living := [m for m, _ in self._members if m.is_alive()]:
            living[n % len(living)].kill()

    def let_all_go(self) -> None:
        for member, gate in self._members:
            gate.open()
            member.join(20)
            assert not member.is_alive()
            gate.close()
        self._members.clear()

    def _live(self, gate: Gate, what: str) -> None:
        global _here  # noqa: PLW0603  # the handler's gate is that of its process
        _here = gate
        for _, other in self._members:
            other.become_child()
        gate.become_child()
        gated = dataclasses.replace(
            self._ports,
            documents=Gated(self._ports.documents, gate),
            memory=Hasty(self._ports.memory, gate),
        )  # type: ignore[arg-type]
        _ACTORS[what](gated, self._action_ids)


def _serve(ports: Ports) -> None:
    """What a process does that was called just now."""
    newest = ports.dispatch.leave(LIMIT_MS, "nobody", None).round
    dispatch.serve(ports, LIMIT_MS, newest, lambda *_: None, lambda *_: None)


def _undo_all(ports: Ports, action_ids: list[str]) -> None:
    for action_id in action_ids:
        roll_back(ports, "acme", action_id)


_ACTORS: dict[str, Callable[[Ports, list[str]], object]] = {
    "server": lambda ports, _: _serve(ports),
    "message": lambda ports, action_ids: execute(ports, "acme", action_ids[0]),
    "undo": _undo_all,
    "reaper": lambda ports, _: reap.look_at_due(ports),
    "scan": lambda ports, _: reap.look_at_all(ports),
}
# The newest goes on most often: the older ones are then overtaken wherever they stopped.
GO = st.tuples(st.just("go"), st.sampled_from([0, 0, 0, 1, 2]), st.integers(1, 12))
MOVES = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(list(_ACTORS)), st.just(1)),
    GO,
    GO,
    GO,
    GO,
    GO,
    st.tuples(st.sampled_from(["kill", "pass"]), st.integers(0, 3), st.just(1)),
)


def _overtaken(steps: int) -> list[tuple[str, Any, int]]:
    """A worker that stops after so many steps, while reaper and undo do all they would."""
    others = [("start", "scan", 1), ("go", 0, 12), ("start", "undo", 1), ("go", 0, 12)]
    return [("go", 0, steps), *others]


def _killed(steps: int) -> list[tuple[str, Any, int]]:
    """A server that dies after so many steps, at its second action by the last of them."""
    others = [("start", "server", 1), ("go", 0, 12), ("start", "reaper", 1), ("go", 0, 12)]
    return [("go", 0, steps), ("kill", 0, 1), *others]


@example(ends="well", undo_fails=0, moves=[("go", 0, 30)])
@example(ends="well", undo_fails=0, moves=_killed(6))
@example(ends="well", undo_fails=0, moves=_killed(7))
@example(ends="well", undo_fails=0, moves=_killed(8))
@example(ends="well", undo_fails=0, moves=_overtaken(7))
@example(ends="well", undo_fails=0, moves=_overtaken(2))
@example(ends="well", undo_fails=0, moves=_overtaken(3))
@example(ends="recoverably", undo_fails=1, moves=_overtaken(5))
@settings(
    max_examples=settings.default.max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["well", "recoverably", "for good"]),
    st.integers(0, 1),
    st.lists(MOVES, min_size=25, max_size=60),
)
def test_whatever_the_order_there_is_one_outcome_and_the_receipts_tell_it(
    playing: Ports, ends: str, undo_fails: int, moves: list[tuple[str, Any, int]]
) -> None:
    clock = playing.clock
    assert isinstance(clock, SharedClock)
    clock.ahead_s.value = 0.0
    assert playing.memory.extend_lease(33)  # all examples together take longer than one lease
    payload = {"ends": ends, "undo_fails": undo_fails}
    ids = [
        submit(playing, Signal("acme", f"play-{next(NUMBERS)}-{os.getpid()}", PLAY, SKU, asked))
        for asked in (payload, {"ends": "well", "undo_fails": 0})
    ]
    crowd = Crowd(playing, ids)
    crowd.start("server")
    for verb, which, times in moves:
        match verb:
            case "start":
                crowd.start(which)
            case "go":
                crowd.go_on(which, times)
            case "kill":
                crowd.kill(which)
            case "pass":
                clock.ahead_s.value += (0.5, 2.0, 5.0, 40.0)[which]
    crowd.let_all_go()

    _heal(playing, crowd, ids)

    for action_id in ids:
        _check(playing, action_id)
    assert playing.memory.claims() == []
    assert playing.memory.due(10) == []
    assert playing.memory.in_flight("acme", [SKU]) == 0


def _heal(ports: Ports, crowd: Crowd, action_ids: list[str]) -> None:
    """What the reaper and the workers do with them, as time goes by."""
    clock = ports.clock
    assert isinstance(clock, SharedClock)
    for _ in range(12):
        if all(action_of(ports, action_id).ended_at for action_id in action_ids):
            return
        for what in ("reaper", "server", "message", "undo"):
            crowd.start(what)
            crowd.let_all_go()
        clock.ahead_s.value += 40


def _check(ports: Ports, action_id: str) -> None:
    ended = action_of(ports, action_id)
    told = Counter(each["operation"] for each in receipts(ports, action_id))
    seen = Counter(each["event"] for each in _notes(action_id))

    assert ended.ended_at
    assert seen["start"] <= 1
    assert not {told for told in seen if "beside" in told}
    assert told["rollback_failed"] <= ended.rollback_attempts
    ends = told["action_complete"] + told["action_timeout"] + told["action_failed"]
    assert ends == 1
    match ended.state:
        case ActionState.COMPLETE:
            assert told["action_complete"] == 1
            assert (seen["end"], seen["undo"]) == (1, 0)
        case ActionState.ROLLED_BACK:
            assert told["action_complete"] == 0
            assert told["action_rolled_back"] == 1
            assert seen["undo"] >= 1
        case ActionState.FAILED:
            assert told["action_rolled_back"] == seen["undo"] == 0
        case state:
            pytest.fail(f"an action that ended is {state}")
    ports.memory.look_again(Slot("acme", SKU, action_id), -1)
    reap.look_at_due(ports)
