"""What a task came to, for Flower: SUCCESS did its work, FAILURE did not, RETRY was put off.

Nothing of it is stored or awaited: the journal and the ledger are the record (decision 11).
"""

from dataclasses import dataclass
from enum import StrEnum


class NotDone(Exception):
    """A task has not done its work, for a reason that is known: no traceback, no redelivery."""


class StepFailed(NotDone):
    """A step has failed, and its run is undone."""


class ActionFailed(NotDone):
    """An action ended failed; its code says why."""


class ActionTimedOut(ActionFailed):
    """An action was stopped at its deadline, or not started in time."""


class RollbackFailed(NotDone):
    """An action's rollback has failed; it is tried again."""


class Ending(StrEnum):
    """How a task ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    NOT_NEEDED = "not needed any more"
    RUN_ENDED = "the run has ended"
    PUT_OFF = "put off"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, and why: a reason in words, or the code of what failed.

    No word of a customer's is in it: operators read it in Flower.
    """

    ending: Ending
    why: str = ""
    failure: type[NotDone] = NotDone
    run_s: float = 0.0
    """How long the work itself took, where that is known."""

    @property
    def is_done(self) -> bool:
        """Whether the work of the task is done, by whomever."""
        return self.ending in (Ending.DONE, Ending.ALREADY_DONE, Ending.RUN_ENDED)


DONE, ALREADY_DONE = Outcome(Ending.DONE), Outcome(Ending.ALREADY_DONE)
NOT_NEEDED, RUN_ENDED = Outcome(Ending.NOT_NEEDED), Outcome(Ending.RUN_ENDED)


def put_off(why: str) -> Outcome:
    """It is not done yet; the reaper brings it back."""
    return Outcome(Ending.PUT_OFF, why)


def failed(failure: type[NotDone], code: str) -> Outcome:
    """It failed; the code says why."""
    return Outcome(Ending.FAILED, code, failure)


def step_failed(error: Exception, code: str) -> Outcome:
    """A step failed with an error of that code."""
    return failed(StepFailed, f"{type(error).__name__}: {code}")
