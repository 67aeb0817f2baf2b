"""Commits of threads that wait at the same time become one transaction, each with its own answer.

The first thread that comes leads: it takes what waits, carries it out, and tells each thread what
became of its commit. What comes meanwhile waits for the next turn, which one of those leads. A
process with one thread pays nothing for it.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from governor.errors import OutageError

W = TypeVar("W")
A = TypeVar("A")
_AT_MOST = 64


@dataclass(slots=True, eq=False)
class _Waiting(Generic[W, A]):
    work: W
    woken: threading.Event = field(default_factory=threading.Event)
    answer: A | BaseException | None = None
    leads: bool = False


class GroupCommit(Generic[W, A]):
    """``carry_out`` is given the work of some threads, and gives back an answer to each."""

    def __init__(self, carry_out: Callable[[Sequence[W]], Sequence[A | BaseException]]) -> None:
        self._carry_out = carry_out
        self._mutex = threading.Lock()
        self._waiting: list[_Waiting[W, A]] = []
        self._is_led = False

    def commit(self, work: W, within_s: float) -> A:
        """Have work carried out, together with that of other threads.

        Raises:
            OutageError: no answer ``within_s``; it MAY HAVE LANDED.
            what the work itself raised.
        """
        mine: _Waiting[W, A] = _Waiting(work)
        with self._mutex:
            self._waiting.append(mine)
            if not self._is_led:
                self._is_led = mine.leads = True
        try:
            if not mine.leads:
                mine.woken.wait(within_s)
            if mine.leads:
                self._lead(mine)
        finally:
            self._hand_on(mine)
        if mine.answer is None:
            raise _given_up(within_s)
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        return mine.answer

    def _lead(self, mine: _Waiting[W, A]) -> None:
        with self._mutex:
            turn = [mine, *(each for each in self._waiting if each is not mine)][:_AT_MOST]
            self._waiting = [each for each in self._waiting if each not in turn]
        try:
            for each, answer in zip(turn, self._answers(turn), strict=True):
                each.answer = answer
        finally:
            for each in turn[1:]:  # where this thread is interrupted, theirs may have landed
                each.woken.set()

    def _answers(self, turn: Sequence[_Waiting[W, A]]) -> Sequence[A | BaseException]:
        try:
            return self._carry_out([each.work for each in turn])
        except OutageError as error:
            return [OutageError(*error.args) for _ in turn]
        except Exception as error:  # of one of them: the others are carried out without it
            return [error] if len(turn) == 1 else [self._answers([each])[0] for each in turn]

    def _hand_on(self, mine: _Waiting[W, A]) -> None:
        """Let another thread lead, if this one did; it is not carried out any more."""
        with self._mutex:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if not mine.leads:
                return
            self._is_led = bool(self._waiting)
            if self._is_led:
                self._waiting[0].leads = True
                self._waiting[0].woken.set()


def _given_up(within_s: float) -> OutageError:
    return OutageError(
        "documents-unavailable",
        f"no answer within {within_s:g} s; the commit may have landed with those of others",
        1,
        "DEADLINE_EXCEEDED",
    )
