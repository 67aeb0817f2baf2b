"""What a task came to, for Flower: SUCCESS did its work, FAILURE did not, RETRY was put off.

Nothing of it is stored or awaited: the journal and the ledger are the record (decision 11).
"""

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """How a task ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    RUN_ENDED = "the run has ended"
    PUT_OFF = "put off"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, and why: a reason in words, or the name and code of what failed."""

    ending: Ending
    why: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the work of the task is done, by whomever."""
        return self.ending in (Ending.DONE, Ending.ALREADY_DONE, Ending.RUN_ENDED)


DONE, ALREADY_DONE = Outcome(Ending.DONE), Outcome(Ending.ALREADY_DONE)
RUN_ENDED = Outcome(Ending.RUN_ENDED)


def put_off(why: str) -> Outcome:
    """It is not done yet; the reaper brings it back."""
    return Outcome(Ending.PUT_OFF, why)


def failed(name: str, code: str) -> Outcome:
    """It failed, with an error of that name and code; no word of a customer's is in either."""
    return Outcome(Ending.FAILED, f"{name}: {code}")


class NotDone(Exception):
    """A task has not done its work, for a reason that is known: no traceback, no redelivery."""


class StepFailed(NotDone):
    """A step has failed, and its run is undone."""


class ActionFailed(NotDone):
    """An action ended failed; its code says why."""


class ActionTimedOut(ActionFailed):
    """An action was stopped at its deadline."""
