"""A first-come, first-served lock between processes and threads, released by the kernel on death.

A lone ``flock`` is unfair, and wakes everybody who waits for it each time. So a writer draws a
number, holds the slot of that number, and waits for the slot of the number before. A slot is a
named pipe: its ``flock`` is the truth, a byte in it wakes the one that waits. Whoever dies or gives
up in the queue lets its successor come too early; the *room* still admits one at a time.
"""

import fcntl
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from governor.errors import OutageError

_SLOTS = 512
"""Most writers that can wait at once."""

_LOOK_AGAIN_S = 0.05
"""How long a death in the queue can go unseen: the dead wake nobody."""


class FairLock:
    """Lock files in ``folder``; each acquisition opens its own descriptors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock.

        Raises:
            OutageError: not acquired within ``timeout_s``; the place in the queue is given up.
        """
        give_up_at = time.monotonic() + timeout_s
        own, before = self._draw()
        room = self._open("room")
        try:
            _await(before, before, give_up_at, timeout_s)
            _await(room, own, give_up_at, timeout_s)
            yield
        finally:
            os.close(room)
            fcntl.flock(own, fcntl.LOCK_UN)
            with suppress(BlockingIOError):
                os.write(own, b".")
            os.close(own)
            os.close(before)

    def _draw(self) -> tuple[int, int]:
        """Draw a number: its slot, held, and the slot of the number before it."""
        numbers = self._open("numbers")
        try:
            fcntl.flock(numbers, fcntl.LOCK_EX)
            number = int(os.pread(numbers, 20, 0) or b"0")
            own = self._open_slot(number)
            if not _try(own):
                os.close(own)
                raise OutageError(
                    "write-lock-timeout", f"{_SLOTS} writers wait already; nothing was written", 1
                )
            before = self._open_slot(number - 1)
            os.pwrite(numbers, b"%020d" % (number + 1), 0)
            return own, before
        finally:
            os.close(numbers)

    def _open_slot(self, number: int) -> int:
        path = self._folder / str(number % _SLOTS)
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _open(self, name: str) -> int:
        try:
            self._folder.mkdir(exist_ok=True, mode=0o700)
            return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutageError("documents-unavailable", f"cannot open the lock: {error}") from error


def _await(lock: int, bell: int, give_up_at: float, timeout_s: float) -> None:
    """Take ``lock``; look whenever ``bell`` rings, and now and then."""
    while not _try(lock):
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise OutageError(
                "write-lock-timeout",
                f"the write lock was not free within {timeout_s} s; nothing was written",
                retry_after_s=1,
            )
        waiting = select.poll()
        waiting.register(bell, select.POLLIN)
        if waiting.poll(min(left_s, _LOOK_AGAIN_S) * 1000):
            with suppress(BlockingIOError):
                os.read(bell, _SLOTS)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
