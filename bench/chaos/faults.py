"""What chaos does to a stack, and which alerts each harm must raise, and may."""

import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from adapters.local.waiting import until
from adapters.wiring import boot_note
from bench.chaos.clock import WallClock
from bench.chaos.host import OtherHost
from bench.chaos.kills import kill, wipe
from bench.chaos.soak import LOCKED
from bench.load import Load
from bench.stack import ggen
from governor.errors import OutageError
from governor.health import Fault as StoreFault
from governor.health import Scope
from ports import Ports

if TYPE_CHECKING:
    from bench.chaos.chaos import Chaos

FLOODED = "chaos-c"
"""The account that sends in bursts alone."""

_LAPSE = frozenset({"degraded_mode_cleared"})
_OUTAGE = frozenset({"degraded_mode", "degraded_mode_cleared"})
_WAITING = frozenset({"actions-waiting"})
"""Accepted actions wait for more than 5 s: there were no workers, or too few."""

_HOUR_S = 3600
_DISK_MIB = 1024
_FILLING = "filling"

CHANCE = random.Random()  # noqa: S311  # no secret
"""What decides which fault comes when; the load has a chance of its own."""

Do = Callable[["Chaos"], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """The harm, the alerts it must raise, those it may raise besides, and what it needs."""

    do: Do
    must: frozenset[str] = frozenset()
    may: frozenset[str] = _OUTAGE
    needs: Callable[["Chaos"], object] = lambda _chaos: True


def _a_while(least_s: float, most_s: float) -> None:
    time.sleep(CHANCE.uniform(least_s, most_s))


def _kill(program: str) -> Do:
    return lambda chaos: kill(chaos.settings, program)


def _stop_a_child(chaos: "Chaos") -> None:
    """SIGSTOP: a process that is paused in the middle of anything."""
    child = CHANCE.choice(chaos.children("actions"))
    child.suspend()
    time.sleep(CHANCE.choice((0.3, 2.0, 6.0)))
    child.resume()


def _exhaust_files(chaos: "Chaos") -> None:
    """No file descriptor is left for the ingress."""
    process = chaos.program("ingress")
    with _limited(process, psutil.RLIMIT_NOFILE, process.num_fds() + 1):
        time.sleep(3)


def _exhaust_memory(chaos: "Chaos") -> None:
    """No memory is left for a process that carries out actions."""
    child = CHANCE.choice(chaos.children("actions"))
    with _limited(child, psutil.RLIMIT_AS, child.memory_info().vms + 2**16):
        time.sleep(3)


@contextmanager
def _limited(process: psutil.Process, what: int, limit: int) -> Iterator[None]:
    before = process.rlimit(what)
    process.rlimit(what, (limit, before[1]))
    try:
        yield
    finally:
        process.rlimit(what, before)


def _fill_the_disk(chaos: "Chaos") -> None:
    if chaos.disk is None:
        return
    filling = chaos.disk / _FILLING
    try:
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**20))
        _a_while(2, 8)
    finally:
        filling.unlink()


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A disk for temporary files that can be filled; None where it cannot be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="ggen-disk-"))
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder)]
    is_mounted = (
        mount
        and umount
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder if is_mounted else None
    finally:
        tempfile.tempdir = before
        if is_mounted:
            subprocess.run([str(umount), "-l", str(folder)], check=True)
        shutil.rmtree(folder)


def _fail_the_store(chaos: "Chaos") -> None:
    """The store fails in some way for as long as it takes to be noticed, and a while longer."""
    with chaos.soak.failing(CHANCE.choice(_kinds(chaos))):
        until(lambda: _is_degraded(chaos.ports), 60)
        _a_while(0, 4)


def _fail_the_store_briefly(chaos: "Chaos") -> None:
    with chaos.soak.failing(CHANCE.choice(_kinds(chaos))):
        _a_while(0.3, 1.3)


def _kinds(chaos: "Chaos") -> list[str]:
    """Ways in which the store fails: a real one where it is a file, else as Google's fails."""
    is_file = not chaos.settings.documents_url
    return [LOCKED] if is_file else [StoreFault.QUOTA, StoreFault.HANG, StoreFault.DEAF]


def _is_degraded(ports: Ports) -> bool:
    """Whether Memory says so; not while it was killed just now."""
    with suppress(OutageError):
        return ports.modes.health(Scope.ALL).is_degraded
    return False


def _upgrade_in_an_outage(chaos: "Chaos") -> None:
    upgrading = threading.Thread(target=chaos.visits.upgrade)
    with chaos.soak.failing(CHANCE.choice(_kinds(chaos))):
        upgrading.start()
        until(lambda: _is_degraded(chaos.ports), 60)
        _a_while(0, 2)
    upgrading.join()


def _flood(chaos: "Chaos") -> None:
    """A tenant sends far more than its plan allows at once."""
    with Load(chaos.settings, FLOODED, per_s=0, clients=8) as load:
        time.sleep(2)
    chaos.loads.append(load)


def _set(clock: Callable[["Chaos"], WallClock | None], seconds: int) -> Do:
    def do(chaos: "Chaos") -> None:
        hands = clock(chaos)
        if hands is None:
            return
        hands.set_by(seconds)
        try:
            _a_while(4, 12)
        finally:
            hands.set_by(0)

    return do


def _own(chaos: "Chaos") -> WallClock | None:
    return chaos.clock


def _others(chaos: "Chaos") -> WallClock | None:
    return chaos.other.clock if chaos.other else None


def _with_other(do: Callable[[OtherHost], None]) -> Do:
    def on_it(chaos: "Chaos") -> None:
        if chaos.other:
            do(chaos.other)

    return on_it


def _kill_host(other: OtherHost) -> None:
    other.kill()
    _a_while(0, 5)
    other.start()


def _cut_off(other: OtherHost) -> None:
    other.relay.is_cut = True
    try:
        _a_while(1, 12)
    finally:
        other.relay.is_cut = False


def _slow_down(other: OtherHost) -> None:
    other.relay.delay_s, other.relay.loss = 0.1, 0.02
    try:
        _a_while(3, 10)
    finally:
        other.relay.delay_s, other.relay.loss = 0.0, 0.0


def _started_with_a_wrong_clock(chaos: "Chaos") -> None:
    """A host that is lost, and comes again with its clock an hour back."""
    if chaos.other is None or chaos.other.clock is None:
        return
    chaos.other.kill()
    chaos.other.clock.set_by(-_HOUR_S)
    boot_note(chaos.other.settings).forget()
    try:
        chaos.other.start()
        _a_while(3, 10)
    finally:
        chaos.other.clock.set_by(0)


def _rotate_the_keys(chaos: "Chaos") -> None:
    ggen(chaos.settings, "keys", "rotate", within_s=30)


_CLOCK_OFF = frozenset({"clock-off"})

_LEFT_AGAIN = frozenset({"policy_bake_returning"})
"""A version may be left by itself: under other faults more actions end badly."""

_LATE = frozenset({"receipt-conflict"})
"""What a process of a host that is cut off sends to the spool may come there when the cut is over.
The process has ended by then, and the reaper its action. What comes is kept aside, and said."""

_ANY = _OUTAGE | _WAITING

FAULTS: dict[str, Fault] = {
    **{f"kill {name}": Fault(_kill(name)) for name in ("ingress", "runbooks")},
    "kill pump": Fault(_kill("pump"), needs=lambda c: c.settings.delivers_signals_itself),
    "kill actions": Fault(_kill("actions"), may=_ANY),
    **{f"kill {name}": Fault(_kill(name)) for name in ("health", "beat", "flower", "valkey")},
    "wipe Memory and broker": Fault(lambda chaos: wipe(chaos.settings), must=_LAPSE),
    "stop a child": Fault(_stop_a_child, may=_ANY),
    "no file descriptors": Fault(_exhaust_files),
    "no memory": Fault(_exhaust_memory, may=_ANY),
    "fill the disk": Fault(_fill_the_disk, may=_ANY, needs=lambda c: c.disk),
    "fail the store": Fault(_fail_the_store, must=_OUTAGE),
    "fail the store briefly": Fault(_fail_the_store_briefly),
    "rotate the keys": Fault(_rotate_the_keys, may=_OUTAGE),
    "upgrade the policy in an outage": Fault(
        _upgrade_in_an_outage, must=_OUTAGE, may=_OUTAGE | _LEFT_AGAIN
    ),
    "a customer comes and goes": Fault(lambda chaos: chaos.visits.come_and_go(), may=_ANY),
    "a month and a budget are used up": Fault(lambda chaos: chaos.visits.exhaust(), may=_ANY),
    "deliver again": Fault(lambda chaos: chaos.visits.again(chaos.loads[0])),
    "flood": Fault(_flood, may=frozenset({"capacity"}) | _ANY),
    **{
        f"set the clock {words}": Fault(
            _set(_own, seconds), may=_ANY | _CLOCK_OFF, needs=lambda c: c.clock
        )
        for words, seconds in (("ahead", _HOUR_S), ("back", -_HOUR_S))
    },
    **{
        f"set the other host's clock {words}": Fault(
            _set(_others, seconds), may=_CLOCK_OFF, needs=_others
        )
        for words, seconds in (("ahead", _HOUR_S), ("back", -_HOUR_S))
    },
    "start the other host with a wrong clock": Fault(
        _started_with_a_wrong_clock, may=_ANY | _CLOCK_OFF, needs=_others
    ),
    **{
        f"{words} the other host": Fault(_with_other(do), may=_ANY | may, needs=lambda c: c.other)
        for words, do, may in (
            ("kill", _kill_host, frozenset()),
            ("cut off", _cut_off, _LATE),
            ("slow down", _slow_down, frozenset()),
        )
    },
    "break the other host's connections": Fault(
        _with_other(lambda other: other.relay.reset()), needs=lambda c: c.other
    ),
}
"""By name."""
