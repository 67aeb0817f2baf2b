"""Signals that wait at the same time are submitted together; a tenant that floods waits alone."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from governor.errors import InputError, OutageError
from ingress.submissions import Submissions
from tasks.actions.admit import Signal
from tasks.actions.storing import Answer

MANY = 64


def _asked(account_id: str, number: int = 0) -> Signal:
    return Signal(account_id, str(number), "demo.succeed", None, {})


class _Door:
    """What signals are submitted to; each turn of the loud tenants waits until it is opened."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.opened = threading.Event()

    def __call__(self, signals: Sequence[Signal]) -> Sequence[Answer]:
        if signals[0].account_id != "quiet":
            self.turns.append([each.signal_id for each in signals])
            self.opened.wait(10)
        return [f"action-{each.signal_id}" for each in signals]


async def _begun(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("store_name", "threads", "together"), [("sqlite", 1, 8), ("firestore", 16, 1)]
)
def test_a_tenant_takes_only_its_share_of_the_threads(
    store_name: str, threads: int, together: int
) -> None:
    door = _Door()
    submissions = Submissions(door, store_name)

    async def play() -> list[str]:
        loud = [asyncio.create_task(submissions.submit(_asked("loud", n))) for n in range(MANY)]
        await _begun(lambda: len(door.turns) == threads)
        assert await asyncio.wait_for(submissions.submit(_asked("quiet")), 5) == "action-0"
        assert len(door.turns) == threads
        door.opened.set()
        return await asyncio.gather(*loud)

    assert asyncio.run(play()) == [f"action-{n}" for n in range(MANY)]
    assert sorted(int(each) for turn in door.turns for each in turn) == list(range(MANY))
    assert max(map(len, door.turns)) == together
    assert not submissions._tenants  # what is not used is not kept


def test_on_sqlite_a_tenant_rests_twice_as_long_as_it_works() -> None:
    def submit_all(signals: Sequence[Signal]) -> Sequence[Answer]:
        time.sleep(0.01)
        return [each.signal_id for each in signals]

    began_s = time.monotonic()

    assert _submitted(submit_all, MANY) == [str(n) for n in range(MANY)]
    assert time.monotonic() - began_s >= 8 * 0.01 + 7 * 0.02


@pytest.mark.parametrize("tenants", [1, 8])
def test_what_waits_too_long_for_a_thread_is_refused(tenants: int) -> None:
    door = _Door()
    submissions = Submissions(door, "firestore", patience_s=0.1)

    async def play() -> list[str | BaseException]:
        asked = [
            asyncio.create_task(submissions.submit(_asked(f"t-{n % tenants}", n)))
            for n in range(MANY)
        ]
        refused, waiting = await asyncio.wait(asked, timeout=1)
        assert {type(each.exception()) for each in refused} == {OutageError}
        door.opened.set()
        await asyncio.wait(waiting)
        return await asyncio.gather(*asked, return_exceptions=True)

    ended = asyncio.run(play())
    most = 16 if tenants == 1 else 40
    assert len(door.turns) == most
    assert [e.code for e in ended if isinstance(e, OutageError)] == ["busy"] * (MANY - most)


def _submitted(submit_all: Callable[[Sequence[Signal]], Sequence[Answer]], count: int) -> list[str]:
    """The answers to signals that come at the same time."""
    submissions = Submissions(submit_all, "sqlite")

    async def play() -> list[str | BaseException]:
        asked = [submissions.submit(_asked("acme", n)) for n in range(count)]
        return await asyncio.gather(*asked, return_exceptions=True)

    return [
        f"{each.code}: {each}" if isinstance(each, (InputError, OutageError)) else str(each)
        for each in asyncio.run(play())
    ]


def test_each_signal_has_its_own_answer() -> None:
    def submit_all(signals: Sequence[Signal]) -> Sequence[Answer]:
        return [InputError("odd", "odd") if int(s.signal_id) % 2 else s.signal_id for s in signals]

    assert _submitted(submit_all, 6) == ["0", "odd: odd", "2", "odd: odd", "4", "odd: odd"]


def test_an_outage_is_the_answer_of_all_and_a_fault_of_one_is_no_others() -> None:
    def submit_all(signals: Sequence[Signal]) -> Sequence[Answer]:
        numbers = [each.signal_id for each in signals]
        if "4" in numbers:
            raise OverflowError("a fault of ours")
        raise OutageError("away", f"{len(numbers)}")

    told = _submitted(submit_all, 8)

    assert told[4] == "a fault of ours"
    assert {each for n, each in enumerate(told) if n != 4} == {"away: 1"}


def test_no_signal_waits_for_ever_for_an_answer_that_is_missing() -> None:
    async def play() -> list[str | BaseException]:
        submissions = Submissions(lambda signals: ["one"] * (len(signals) - 1), "sqlite")
        asked = [submissions.submit(_asked("acme", n)) for n in range(3)]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    told = asyncio.run(play())
    assert told[:2] == ["one", "one"]
    assert isinstance(told[2], ValueError)


def test_a_client_that_has_gone_takes_nothing_from_the_others() -> None:
    door = _Door()
    submissions = Submissions(door, "sqlite")

    async def play() -> list[str]:
        asked = [asyncio.create_task(submissions.submit(_asked("acme", n))) for n in range(5)]
        await _begun(lambda: len(door.turns) > 0)
        for gone in (asked[0], asked[-1]):
            gone.cancel()
        door.opened.set()
        return await asyncio.gather(*asked[1:-1])

    assert asyncio.run(play()) == [f"action-{n}" for n in (1, 2, 3)]
