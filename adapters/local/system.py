"""The machine's boot and processes."""

import os
import socket
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

import psutil

from governor.records import ProcessClaim
from governor.times import timestamp

_SHARED_NAMES = ("", "localhost", "localhost.localdomain")
"""Host names that tell no machine from another: what was claimed in another boot is not seen."""


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


def boot_id() -> str:
    """What tells this boot of this machine from all others."""
    return _read("/proc/sys/kernel/random/boot_id").strip().replace("-", "")


def since_boot_s() -> float:
    """Seconds since this machine's boot; no change of the wall clock moves them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def since_boot_ms() -> int:
    """The same in milliseconds."""
    return round(since_boot_s() * 1000)


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
