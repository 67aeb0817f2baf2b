"""The machine's own clock and processes."""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from governor.errors import OutageError
from governor.records import ProcessClaim
from governor.times import instant, timestamp

_SHARED_NAMES = ("", "localhost", "localhost.localdomain")
"""Host names that tell no machine from another: what was claimed in another boot is not seen."""


STEP = timedelta(seconds=5)
"""How far the machine's clock may be set, or be apart from another's, and still be followed."""

_ASK_AGAIN_S = 5.0


class SystemClock:
    """See ``ports.system.Clock`` for what it promises.

    Time is the moment of the boot plus the kernel's seconds since then. That moment follows the
    machine's clock, except where it is set by more than ``STEP``.

    Args:
        boot_as_agreed: when this machine booted, as its other processes or another machine have
            it; asked once. It may raise OutageError; then it is asked again.
        machine: the machine's clock.
    """

    def __init__(
        self,
        boot_as_agreed: Callable[[], datetime] | None = None,
        machine: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._boot_as_agreed, self._machine = boot_as_agreed, machine
        self._booted_at: datetime | None = None
        self._ask_at_s = 0.0

    def now(self) -> datetime:
        since_boot_s = _since_boot_s()
        if self._boot_as_agreed and since_boot_s >= self._ask_at_s:
            self._ask_at_s = since_boot_s + _ASK_AGAIN_S
            with suppress(OutageError):
                self._booted_at = self._boot_as_agreed()
                self._boot_as_agreed = None
        set_to, since_boot = self._machine(), timedelta(seconds=since_boot_s)
        if self._booted_at is None or abs(set_to - self._booted_at - since_boot) <= STEP:
            self._booted_at = set_to - since_boot
            return set_to
        return self._booted_at + since_boot

    def machine(self) -> datetime:
        return self._machine()

    def monotonic_s(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SystemProcesses:
    """See ``ports.system.Processes`` for what it promises."""

    def __init__(self) -> None:
        self._own: tuple[int, float] | None = None
        self._boot_id = _read("/proc/sys/kernel/random/boot_id").strip()
        self._namespace = _namespace()

    def claim(self, at: datetime) -> ProcessClaim:
        pid = os.getpid()
        if self._own is None or self._own[0] != pid:
            self._own = (pid, started_s(pid))
        return ProcessClaim(
            host=socket.gethostname(),
            boot_id=self._boot_id,
            namespace=self._namespace,
            pid=pid,
            process_started=self._own[1],
            claimed_at=timestamp(at),
        )

    def kill(self, claim: ProcessClaim) -> None:
        if self.sees(claim) and claim.pid != os.getpid():
            with suppress(psutil.Error):
                if self._is_that(claim):
                    psutil.Process(claim.pid).kill()

    def is_gone(self, claim: ProcessClaim) -> bool:
        if not self.sees(claim):
            return False
        try:
            if not self._is_that(claim):
                return True
            return psutil.Process(claim.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except (psutil.Error, OSError):
            return False

    def sees(self, claim: ProcessClaim) -> bool:
        is_here = claim.namespace in ("", self._namespace)  # release 0.1.0 did not note it
        # Instances of Cloud Run are virtual machines that all have the same name.
        is_same = claim.boot_id == self._boot_id or claim.host not in _SHARED_NAMES
        return claim.host == socket.gethostname() and is_here and is_same

    def age_s(self) -> float:
        return time.time() - psutil.Process(os.getpid()).create_time()

    def _is_that(self, claim: ProcessClaim) -> bool:
        """A pid is used again, also after a boot; its start tells the processes apart."""
        return claim.boot_id == self._boot_id and started_s(claim.pid) == claim.process_started


def boot_noted() -> str:
    """When this boot of the machine was, by its clock as it is now: a note for its processes."""
    booted_at = datetime.now(UTC) - timedelta(seconds=_since_boot_s())
    return json.dumps({"boot_id": boot_id(), "booted_at": timestamp(booted_at)})


def boot_by_note(note: Path) -> datetime | None:
    """What ``boot_noted`` said in this boot of the machine; None where there is no such note."""
    try:
        noted = json.loads(_read(str(note)) or "{}")
        return instant(noted["booted_at"]) if noted.get("boot_id") == boot_id() else None
    except (OSError, ValueError, KeyError):
        return None


def boot_id() -> str:
    """What tells this boot of this machine from all others."""
    return _read("/proc/sys/kernel/random/boot_id").strip().replace("-", "")


def _since_boot_s() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def since_boot_ms() -> int:
    """Milliseconds since this machine's boot; no change of the wall clock moves them."""
    return round(_since_boot_s() * 1000)


def started_s(pid: int) -> float:
    """When a process began, in seconds from the boot: no change of the wall clock moves it.

    ``psutil`` adds the moment of the boot as the clock has it now. It is asked where there is no
    ``/proc``.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    if not _read("/proc/self/stat"):
        return psutil.Process(pid).create_time()
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        raise psutil.NoSuchProcess(pid)
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _namespace() -> str:
    """Which numbering of processes this one is in."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that no process listens on just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
