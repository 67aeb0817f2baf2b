"""The time that all programs of a machine have in common, whatever its clock is set to."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adapters.local.private_files import replace
from adapters.local.system import boot_id, since_boot_s
from governor.errors import OutageError
from governor.times import instant, timestamp

STEP = timedelta(seconds=5)
"""How far the machine's clock may be set, or be apart from another's, and still be followed."""

_NOTED_WITHIN = timedelta(seconds=1)
_ASK_AGAIN_S = 5.0


class BootNote:
    """A file that says when this boot of the machine was, for the programs that share it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> datetime | None:
        """What it says; None where it is missing, torn, or of another boot."""
        try:
            noted = json.loads(self._file.read_text())
            is_of_this_boot = boot_id() and noted["boot_id"] == boot_id()
            return instant(noted["booted_at"]) if is_of_this_boot else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, booted_at: datetime) -> None:
        """Say it from now on; where nothing can be written, each program has its own time."""
        text = json.dumps({"boot_id": boot_id(), "booted_at": timestamp(booted_at)})
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace(self._file, text)

    def forget(self) -> None:
        """Have the next program go by the machine's clock as it then is."""
        self._file.unlink(missing_ok=True)


class SystemClock:
    """See ``ports.system.Clock`` for what it promises.

    Time is the moment of the boot plus the kernel's seconds since then. That moment follows the
    machine's clock, except where it is set by more than ``STEP``. The first program that asks
    settles it, by Memory's clock where the machine's is apart from that, and notes it.

    Args:
        note: what the machine's programs share; None: this process has its own time.
        memory: the clock of Memory's server. It may raise OutageError; then it is asked again.
        is_elsewhere: Memory has a machine, so a clock, of its own: where the machine's clock was
            set and agrees with it, it is followed.
        machine: the machine's clock.
    """

    def __init__(
        self,
        note: BootNote | None = None,
        memory: Callable[[], datetime] | None = None,
        *,
        is_elsewhere: bool = False,
        machine: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._note, self._memory, self._machine = note, memory, machine
        self._is_elsewhere = is_elsewhere
        self._booted_at: datetime | None = None
        self._noted: datetime | None = None
        self._ask_at_s = 0.0

    def now(self) -> datetime:
        boot_s = since_boot_s()
        since_boot = timedelta(seconds=boot_s)
        if self._booted_at is None and self._may_ask(boot_s):
            self._settle(since_boot)
        set_to, booted_at = self._machine(), self._booted_at
        if booted_at is None:
            return set_to  # Memory does not answer: nothing is admitted or begun
        if abs(set_to - since_boot - booted_at) > STEP and not self._is_right(set_to, boot_s):
            return booted_at + since_boot
        self._follow(set_to - since_boot)
        return set_to

    def machine(self) -> datetime:
        return self._machine()

    def monotonic_s(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _settle(self, since_boot: timedelta) -> None:
        """Take what other programs noted; else ask Memory, and note it."""
        own = self._machine() - since_boot
        self._noted = found = self._note.read() if self._note else None
        if found is None and self._memory:
            try:
                theirs = self._memory() - since_boot
            except OutageError:
                return
            found = own if abs(own - theirs) <= STEP else theirs
        self._follow(found or own)

    def _is_right(self, set_to: datetime, boot_s: float) -> bool:
        """Whether a clock that was set agrees with another machine's."""
        if not self._is_elsewhere or self._memory is None or not self._may_ask(boot_s):
            return False
        try:
            return abs(set_to - self._memory()) <= STEP
        except OutageError:
            return False

    def _may_ask(self, boot_s: float) -> bool:
        if boot_s < self._ask_at_s:
            return False
        self._ask_at_s = boot_s + _ASK_AGAIN_S
        return True

    def _follow(self, booted_at: datetime) -> None:
        self._booted_at = booted_at
        if self._note and (self._noted is None or abs(booted_at - self._noted) > _NOTED_WITHIN):
            self._noted = booted_at
            self._note.write(booted_at)
