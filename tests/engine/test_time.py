"""One time for all processes of a machine, whatever its clock is set to."""

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import adapters.local.clock
from adapters.local.clock import BootNote, SystemClock
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


@pytest.fixture
def note(tmp_path: Path) -> BootNote:
    return BootNote(tmp_path / "run" / "clock.json")


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


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_process_that_begins_later_has_the_time_of_the_others(
    note: BootNote, by: timedelta
) -> None:
    hands = Hands()
    assert abs(SystemClock(note, machine=hands).now() - hands()) < SOON

    hands.set_by = by

    clock = SystemClock(note, lambda: pytest.fail("it is settled"), machine=hands)
    assert abs(clock.now() - datetime.now(UTC)) < SOON


def test_small_corrections_are_followed_by_all_however_far_they_lead(note: BootNote) -> None:
    hands = Hands()
    first = SystemClock(note, machine=hands)
    for _ in range(10):
        hands.set_by += timedelta(seconds=3)
        assert abs(first.now() - hands()) < SOON

    assert abs(SystemClock(note, machine=hands).now() - hands()) < SOON


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"boot_id": "another", "booted_at": "2026-01-01"}', None]
)
def test_a_note_of_another_boot_or_a_torn_one_says_nothing(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "clock.json").write_text(text)
    assert BootNote(tmp_path / "clock.json").read() is None


def test_a_note_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    clock = SystemClock(BootNote(tmp_path / "file" / "clock.json"))
    assert abs(clock.now() - datetime.now(UTC)) < SOON


def test_a_machine_that_is_off_goes_by_memorys_clock_as_soon_as_memory_answers(
    monkeypatch: pytest.MonkeyPatch, note: BootNote
) -> None:
    monkeypatch.setattr(adapters.local.clock, "_ASK_AGAIN_S", 0.0)
    hands, answers = Hands(), [False, True]
    hands.set_by = -HOUR

    def memory() -> datetime:
        if not answers.pop(0):
            raise OutageError("memory-unavailable", "not yet")
        return datetime.now(UTC)

    clock = SystemClock(note, memory, machine=hands)
    assert abs(clock.now() - hands()) < SOON, "without Memory it has its own clock alone"

    assert abs(clock.now() - datetime.now(UTC)) < SOON
    assert abs(SystemClock(note, memory, machine=hands).now() - datetime.now(UTC)) < SOON
    assert not answers, "it is asked until it has answered, and then by nobody"


def test_a_clock_that_is_set_right_by_another_machines_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adapters.local.clock, "_ASK_AGAIN_S", 0.0)
    hands, memorys = Hands(), Hands()
    clock = SystemClock(None, memorys, is_elsewhere=True, machine=hands)
    assert abs(clock.now() - hands()) < SOON

    hands.set_by = HOUR  # somebody sets this machine's
    assert abs(clock.now() - datetime.now(UTC)) < SOON
    memorys.set_by = HOUR  # or it stood still, while the other went on
    assert abs(clock.now() - hands()) < SOON


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
    file = tmp_path / "clock.json"
    SystemClock(BootNote(file)).now()
    code = (
        "from pathlib import Path; from adapters.local.clock import *;"
        f"clock = SystemClock(BootNote(Path({str(file)!r})));"
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
