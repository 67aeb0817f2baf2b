"""Whether a change of a limit helped, and how long the next one waits where it did not."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from governor.records import PlanType, Record, Timestamp
from governor.scaling.readings import LAGGING, is_within
from governor.times import timestamp

Verdict = Literal["better", "same", "worse", "inconclusive", "superseded"]
VERDICT_AFTER_S = 60

BACK_OFF_S = (300, 600, 1200, 3600)
"""How long the limit stays after changes that did not help, one after the other."""

MOST_CHANGES_AN_HOUR = 10
_ARRIVALS_ROSE = 1.25


def verdict(before: int | None, after: int | None) -> Verdict:
    """Whether a lag that was ``before`` became less, as of a minute or more later."""
    if before is None or after is None:
        return "inconclusive"
    margin = max(2.0, before / 10)
    if after > before + margin:
        return "worse"
    return "better" if after < before - margin or after <= LAGGING else "same"


def arrivals_rose(before_per_s: float | None, after_per_s: float | None) -> bool:
    """Whether by more than a quarter: then a lag that grew was no fault of the change."""
    if before_per_s is None or after_per_s is None:
        return False
    return after_per_s > _ARRIVALS_ROSE * before_per_s


class History(Record):
    """``tenants/{account_id}/scaling/{entitlement_id}``: its limit's changes, and what holds it."""

    changes: tuple[Timestamp, ...] = Field(default=(), description="the newest, oldest first")
    in_vain: int = Field(default=0, description="changes in a row that did not help")
    backing_off_until: Timestamp | None = None
    paused_until: Timestamp | None = None
    paused_by: str = ""
    commanded: int | None = Field(
        default=None, description="what an operator set: it falls no lower by itself"
    )
    commanded_plan: PlanType | None = Field(default=None, description="the plan that was set for")

    def changed(self, at: datetime) -> "History":
        """With a change just made."""
        return self.evolve(changes=(*self.changes, timestamp(at))[-MOST_CHANGES_AN_HOUR:])

    def since(self, now: datetime, seconds: float) -> Sequence[Timestamp]:
        """The changes of so many seconds, as far as they are known."""
        return [each for each in self.changes if is_within(now, each, seconds)]

    def in_vain_again(self, now: datetime, *, longer: bool = True) -> "History":
        """After a change that did not help, or was refused: the next one waits, each time longer.

        Args:
            now: from when on.
            longer: false where the change was not to blame: it waits no longer than before, and
                where none was in vain before, for the usual minute only.
        """
        in_a_row = self.in_vain + 1 if longer else self.in_vain
        if not in_a_row:
            return self
        until = now + timedelta(seconds=back_off_s(in_a_row))
        return self.evolve(in_vain=in_a_row, backing_off_until=timestamp(until))

    def helped(self) -> "History":
        """After a change that helped."""
        return self.evolve(in_vain=0, backing_off_until=None)


def back_off_s(in_a_row: int) -> int:
    """How long the limit stays after so many changes that did not help."""
    return BACK_OFF_S[min(max(in_a_row, 1), len(BACK_OFF_S)) - 1]
