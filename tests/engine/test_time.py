"""One time for all processes of a machine, whatever its clock is set to."""

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.local import system
from adapters.local.system import SystemClock, boot_by_note, boot_noted, since_boot_ms
from bench.chaos.clock import wall_clock
from governor.errors import OutageError
from governor.fsm import ActionState
from ports import Ports
from tasks.actions import reap
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tests.engine.conftest import event
from tests.support.actions import action_of, operations, signal_of, worker
from tests.support.runs import subscribe
from tests.support.stores import Stores
from tests.support.waiting import until

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=1)


class Hands:
    """A machine's clock as somebody sets it."""

    def __init__(self) -> None:
        self.set_by = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.set_by


@pytest.mark.parametrize("by", [HOUR, -HOUR, timedelta(days=-20_000)])
def test_a_clock_that_is_set_moves_the_time_of_no_process(by: timedelta) -> None:
    hands = Hands()
    clock = SystemClock(machine=hands)
    assert abs(clock.now() - hands()) < SOON

    hands.set_by = by

    assert abs(clock.now() - datetime.now(UTC)) < SOON
    assert abs(clock.machine() - clock.now() - by) < SOON
    hands.set_by = timedelta(seconds=2)
    assert abs(clock.now() - hands()) < SOON, "set right again, it is followed"


def test_a_clock_that_is_corrected_a_little_is_followed_as_far_as_it_goes() -> None:
    hands = Hands()
    clock = SystemClock(machine=hands)
    for _ in range(10):
        hands.set_by += timedelta(seconds=3)
        assert abs(clock.now() - hands()) < SOON


def test_a_process_that_begins_later_takes_the_time_that_the_others_have(tmp_path: Path) -> None:
    note, hands = tmp_path / "clock.json", Hands()
    note.write_text(boot_noted())
    hands.set_by = HOUR

    clock = SystemClock(lambda: boot_by_note(note) or pytest.fail("no note"), hands)

    assert abs(clock.now() - datetime.now(UTC)) < SOON


@pytest.mark.parametrize("text", ["", "{", '{"boot_id": "another", "booted_at": ""}', None])
def test_a_note_of_another_boot_or_a_torn_one_says_nothing(
    tmp_path: Path, text: str | None
) -> None:
    note = tmp_path / "clock.json"
    if text is not None:
        note.write_text(text)
    assert boot_by_note(note) is None


def test_a_machine_that_is_off_goes_by_memorys_clock_as_soon_as_memory_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "_ASK_AGAIN_S", 0.0)
    hands, answers = Hands(), list[bool]([False, True])
    hands.set_by = -HOUR

    def booted_at() -> datetime:
        if not answers.pop(0):
            raise OutageError("memory-unavailable", "not yet")
        return datetime.now(UTC) - timedelta(milliseconds=since_boot_ms())

    clock = SystemClock(booted_at, hands)
    assert abs(clock.now() - hands()) < SOON, "without Memory it has its own clock alone"

    assert abs(clock.now() - datetime.now(UTC)) < SOON
    assert abs(clock.now() - datetime.now(UTC)) < SOON
    assert not answers, "it is asked until it has answered"


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_what_waits_while_the_clock_is_set_is_carried_out(ports: Ports, by: timedelta) -> None:
    hands = Hands()
    here = dataclasses.replace(ports, clock=SystemClock(machine=hands))
    subscribe(here, event(plan_type="professional"))
    action_id = submit(here, signal_of("s"))

    hands.set_by = by
    reap.look_at_all(here)
    execute(here, "acme", action_id)

    found = action_of(here, action_id)
    assert (found.state, found.error_code) == (ActionState.COMPLETE, None)
    assert found.queue_ms is not None
    assert found.queue_ms < 5000


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_what_runs_while_the_clock_is_set_is_not_taken_for_late(
    ports: Ports, stores: Stores, by: timedelta
) -> None:
    hands = Hands()
    here = dataclasses.replace(ports, clock=SystemClock(machine=hands))
    subscribe(here, event(plan_type="professional"))
    action_id = submit(here, signal_of("s", "demo.sleep", seconds=0.4))
    process = worker(stores, action_id)
    until(lambda: action_of(here, action_id).state is ActionState.RUNNING)

    hands.set_by = by
    reap.look_at_all(here)
    process.join()

    assert process.exitcode == 0
    assert operations(here, action_id) == ["action_complete"]


def test_every_program_of_a_machine_whose_clock_is_set_has_one_time(tmp_path: Path) -> None:
    clock = wall_clock(tmp_path / "shim")
    if clock is None:
        pytest.skip("no C compiler for the shim")
    note = tmp_path / "clock.json"
    note.write_text(boot_noted())
    code = (
        "from pathlib import Path; from adapters.local.system import *;"
        f"clock = SystemClock(lambda: boot_by_note(Path({str(note)!r})));"
        "print(clock.now().timestamp(), clock.machine().timestamp())"
    )
    clock.set_by(3600)

    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **clock.environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    now_s = datetime.now(UTC).timestamp()
    assert float(said[0]) == pytest.approx(now_s, abs=5)
    assert float(said[1]) == pytest.approx(now_s + 3600, abs=5)
