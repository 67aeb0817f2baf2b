"""A lock between processes and threads with a bounded wait, released by the kernel on death.

A lone ``flock`` is unfair, and wakes everybody who waits for it each time. A strict queue hands it
from one sleeper to the next, and each has to be woken first. So a newcomer first tries the lock
itself (the *room*). Who fails queues. The head of the queue shuts a *gate* once it has waited 3 ms:
newcomers that find it shut queue as well, so that the head is overtaken no more.

The queue: a writer draws a number, holds the slot of that number, and waits for the slot of the
number before. A slot is a named pipe: its ``flock`` is the truth, a byte in it wakes the one that
waits. A writer that dies or gives up in the queue lets its successor come too early. The room still
admits one at a time, and has a bell of its own. Without that bell an early writer would look for
the room only now and then, while the queue behind it waits until more writers gave up.
"""

import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from governor.errors import OutageError

_SLOTS = 512
"""Most writers that can wait at once."""

_LOOK_AGAIN_S = 0.25
"""How long a death in the queue can go unseen: a dead writer does not wake its successor."""


_OVERTAKEN_FOR_S = 0.003
"""How long the head of the queue lets newcomers overtake it."""


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
        with ExitStack() as opened:
            try:
                room = self._open("entrance", opened, os.O_NONBLOCK, os.mkfifo)
                gate = self._open("gate", opened)
                queues = not _barges(room, gate)
                before = self._draw(opened, give_up_at, timeout_s) if queues else room
            except (OSError, ValueError) as error:
                raise OutageError(
                    "documents-unavailable", f"the lock is unusable: {error}"
                ) from error
            # Let go of by hand: a child forked meanwhile must not go on holding them.
            if queues:
                opened.callback(fcntl.flock, before, fcntl.LOCK_UN)
                _await(before, before, give_up_at, timeout_s)
            opened.callback(_ring, room)
            if queues:
                opened.callback(fcntl.flock, gate, fcntl.LOCK_UN)
                _await(room, room, give_up_at, timeout_s, gate)
                fcntl.flock(gate, fcntl.LOCK_UN)
            yield

    def _draw(self, opened: ExitStack, give_up_at: float, timeout_s: float) -> int:
        """Draw a number, whose slot is held from then on; the slot of the number before it.

        A slot that is still held is that of a waiter which neither moves nor dies: it is passed.
        """
        with ExitStack() as meanwhile:
            numbers = self._open("numbers", meanwhile)
            while not _try(numbers):  # held for some microseconds, unless its holder was stopped
                if time.monotonic() > give_up_at:
                    raise _too_late(timeout_s)
                time.sleep(0.0002)
            last = int(os.pread(numbers, 20, 0) or b"0")
            for number in range(last + 1, last + _SLOTS):
                with ExitStack() as drawn:
                    own = self._open_slot(number, drawn)
                    if not _try(own):
                        continue
                    before = self._open_slot(last, drawn)
                    os.pwrite(numbers, b"%020d" % number, 0)
                    opened.push(drawn.pop_all())
                    opened.callback(_ring, own)
                    return before
        raise OutageError(
            "write-lock-timeout",
            "too many writers wait; nothing was written",
            1,
            "RESOURCE_EXHAUSTED",
        )

    def _open_slot(self, number: int, opened: ExitStack) -> int:
        name = str(number % _SLOTS)
        return self._open(name, opened, os.O_NONBLOCK, os.mkfifo)

    def _open(
        self,
        name: str,
        opened: ExitStack,
        flags: int = os.O_CREAT,
        make: Callable[[str, int], object] | None = None,
    ) -> int:
        path = f"{self._folder}/{name}"  # not by pathlib: three writers an action come by here
        try:
            fd = _opened(path, flags)
            if fd is None:  # the first writer here creates folder and file
                self._folder.mkdir(exist_ok=True, mode=0o700)
                if make:
                    with suppress(FileExistsError):
                        make(path, 0o600)
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        except OSError as error:
            raise OutageError("documents-unavailable", f"cannot open the lock: {error}") from error
        opened.callback(os.close, fd)
        return fd


def _opened(path: str, flags: int) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        return None


def _ring(lock: int) -> None:
    """Let go of a slot or the room, then wake the one that waits for it."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    with suppress(BlockingIOError):
        os.write(lock, b".")


def _barges(room: int, gate: int) -> bool:
    """Take the room at once, if it is free and the head of the queue has not shut the gate."""
    if not _try(gate, fcntl.LOCK_SH):
        return False
    try:
        return _try(room)
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)


def _await(
    lock: int, bell: int, give_up_at: float, timeout_s: float, gate: int | None = None
) -> None:
    """Take ``lock``; look whenever ``bell`` rings, and now and then.

    After 3 ms the ``gate`` is shut, so that no newcomer takes the lock first.
    """
    shut_at = time.monotonic() + _OVERTAKEN_FOR_S if gate is not None else give_up_at
    while not _try(lock):
        now = time.monotonic()
        if now >= give_up_at:
            raise _too_late(timeout_s)
        look_in_s = min(give_up_at - now, _LOOK_AGAIN_S)
        if gate is not None and now < shut_at:
            look_in_s = min(look_in_s, shut_at - now)
        elif gate is not None:
            look_in_s = look_in_s if _try(gate) else min(look_in_s, _OVERTAKEN_FOR_S)
        waiting = select.poll()
        waiting.register(bell, select.POLLIN)
        if waiting.poll(look_in_s * 1000):
            with suppress(BlockingIOError):
                os.read(bell, _SLOTS)


def _too_late(timeout_s: float) -> OutageError:
    return OutageError(
        "write-lock-timeout",
        f"the write lock was not free within {timeout_s} s; nothing was written",
        1,
        "DEADLINE_EXCEEDED",
    )


def _try(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
