import hashlib
import socket
import threading
import time

import pytest

from tasks.actions.deadline import Ending, run_within


def test_a_call_that_returns_in_time_has_won() -> None:
    ended = run_within(5, lambda: None)

    assert ended.ending is Ending.RETURNED
    assert ended.fired_late_s is None


def _sleeps() -> None:
    time.sleep(30)


def _loops() -> None:
    while True:
        pass


def _reads() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.recv(1)


@pytest.mark.parametrize("call", [_sleeps, _loops, _reads])
def test_whatever_a_call_does_in_python_it_is_interrupted_and_never_early(call: object) -> None:
    ended = run_within(0.05, call)  # type: ignore[arg-type]

    assert ended.ending is Ending.TIMED_OUT
    assert ended.fired_late_s is not None
    assert ended.fired_late_s >= 0
    assert ended.elapsed_s >= 0.05


def test_a_call_that_swallows_the_interruption_and_returns_has_timed_out() -> None:
    def swallows() -> None:
        try:
            time.sleep(30)
        except BaseException:
            pass

    assert run_within(0.02, swallows).ending is Ending.TIMED_OUT


def test_a_call_that_turns_the_interruption_into_an_error_has_timed_out() -> None:
    def turns() -> None:
        try:
            time.sleep(30)
        except BaseException as error:
            raise ValueError from error

    assert run_within(0.02, turns).ending is Ending.TIMED_OUT


def test_a_call_in_c_code_ends_when_it_comes_back_and_has_timed_out() -> None:
    ended = run_within(0.001, lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000))

    assert ended.ending is Ending.TIMED_OUT


def test_an_error_is_handed_back_not_raised() -> None:
    def fails() -> None:
        raise LookupError("x")

    ended = run_within(5, fails)

    assert ended.ending is Ending.RAISED
    assert isinstance(ended.error, LookupError)


def test_no_timer_is_left_behind() -> None:
    run_within(0.05, lambda: None)

    ended = run_within(5, lambda: threading.Event().wait(0.1))

    assert ended.ending is Ending.RETURNED


def test_outside_the_main_thread_it_refuses_rather_than_never_fire() -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            run_within(1, lambda: None)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()

    assert "main thread" in str(raised[0])


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_call_that_burns_processor_time_lends_its_core_and_one_that_waits_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    import itertools
    import os

    lent: list[float] = []
    used_s = itertools.count(step=60) if is_busy else itertools.repeat(0)
    monkeypatch.setattr(time, "process_time", lambda: next(used_s))
    monkeypatch.setattr(os, "sched_yield", lambda: lent.append(time.monotonic()))

    assert run_within(0.2, _sleeps).ending is Ending.TIMED_OUT

    assert bool(lent) is is_busy


@pytest.mark.parametrize("seconds", [0.0002, 0.001, 0.0101])
def test_many_short_deadlines_in_a_system_call_are_all_kept(seconds: float) -> None:
    """A signal just before the call waits in the kernel must not be the only one."""
    for _ in range(200):
        left, right = socket.socketpair()
        with left, right:
            assert run_within(seconds, lambda left=left: left.recv(1)).ending is Ending.TIMED_OUT  # type: ignore[misc]
