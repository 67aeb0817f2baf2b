import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adapters.local.fair_lock import FairLock
from governor.errors import OutageError

HOLDER = """
import sys, time
from pathlib import Path
from adapters.local.fair_lock import FairLock
with FairLock(Path(sys.argv[1])).held(5):
    print("held", flush=True)
    time.sleep(600)
"""


def test_waiting_is_bounded_and_the_place_is_given_up(tmp_path: Path) -> None:
    lock = FairLock(tmp_path / "lock")

    with lock.held(1), pytest.raises(OutageError, match="nothing was written"), lock.held(0.05):
        pass

    with lock.held(1):  # nobody holds it for the one that gave up
        pass


def test_the_death_of_its_holder_frees_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        holder.kill()

    with FairLock(tmp_path / "lock").held(5):
        pass


def test_whoever_waits_gets_it_before_the_last_holder_again(tmp_path: Path) -> None:
    lock, order, go_on = FairLock(tmp_path / "lock"), [], threading.Event()

    def hog() -> None:
        while not go_on.is_set():
            with lock.held(10):
                order.append("hog")
                time.sleep(0.001)

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        for _ in range(20):
            with lock.held(10):
                order.append("guest")
    finally:
        go_on.set()
        thread.join()

    runs = "".join("h" if o == "hog" else "g" for o in order).split("g")
    assert order.count("guest") == 20
    assert max(len(r) for r in runs[1:]) <= 20  # bounded waiting, not hundreds of turns


def test_a_waiter_that_stands_still_costs_its_successor_its_patience_and_nobody_else(
    tmp_path: Path,
) -> None:
    lock = FairLock(tmp_path / "lock")
    with lock.held(1):
        waiter = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")])
        numbers = tmp_path / "lock" / "numbers"
        until_drawn = time.monotonic() + 10
        while not numbers.exists() and time.monotonic() < until_drawn:
            time.sleep(0.01)
        waiter.send_signal(signal.SIGSTOP)

    refused = 0
    for _ in range(1200):  # more than there are slots
        try:
            with lock.held(0.05):
                pass
        except OutageError:
            refused += 1
    waiter.kill()
    waiter.wait()

    assert refused <= 1
    with lock.held(1):
        pass


def test_a_lock_that_cannot_be_opened_is_an_outage_and_leaves_nothing_held(
    tmp_path: Path,
) -> None:
    lock = FairLock(tmp_path / "lock")
    with lock.held(1):
        pass
    (tmp_path / "lock" / "entrance").unlink()
    (tmp_path / "lock" / "entrance").mkdir()

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OutageError, match="cannot open the lock"), lock.held(1):
            pass
    assert len(os.listdir("/proc/self/fd")) == before

    (tmp_path / "lock" / "entrance").rmdir()
    with lock.held(1):
        pass


def test_a_holder_of_the_numbers_that_stands_still_is_not_waited_for_without_end(
    tmp_path: Path,
) -> None:
    lock = FairLock(tmp_path / "lock")
    with lock.held(1), pytest.raises(OutageError), lock.held(0.01):
        pass  # it queues, where the other one found the lock free
    with lock.held(1), (tmp_path / "lock" / "numbers").open() as numbers:
        fcntl.flock(numbers, fcntl.LOCK_EX)
        with pytest.raises(OutageError, match="not free within"), lock.held(0.1):
            pass

    with lock.held(1):
        pass


def test_a_child_forked_meanwhile_does_not_go_on_holding_it(tmp_path: Path) -> None:
    lock = FairLock(tmp_path / "lock")
    with lock.held(1):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()

    with lock.held(1):
        pass
    child.kill()
    child.join()


def test_one_that_gives_up_in_the_queue_costs_those_behind_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.local import fair_lock

    lock, got, held_by_others = FairLock(tmp_path / "lock"), threading.Event(), list[int]()
    is_free = fair_lock._try

    def watched(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
        if is_free(fd, kind):
            return True
        if threading.current_thread().name == "behind":
            held_by_others.append(fd)
        return False

    monkeypatch.setattr(fair_lock, "_LOOK_AGAIN_S", 600)  # only a bell can wake
    monkeypatch.setattr(fair_lock, "_try", watched)

    def give_up() -> None:
        with pytest.raises(OutageError), lock.held(0.3):
            pass

    def wait_behind() -> None:
        with lock.held(20):
            got.set()

    ahead = threading.Thread(target=give_up)
    behind = threading.Thread(target=wait_behind, name="behind")
    with lock.held(1):
        ahead.start()
        numbers = tmp_path / "lock" / "numbers"
        while not numbers.exists() or not numbers.read_text():
            time.sleep(0.001)
        behind.start()
        ahead.join()
        while len(held_by_others) < 3:  # the room was, the one before it was, and now the room is
            time.sleep(0.001)
    assert got.wait(10)
    behind.join()
