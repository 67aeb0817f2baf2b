"""An objective: which receipts are its events, and which of them are good.

An SLI is measured from the record alone, so that its attainment in any window can be computed
again, after a restart or on another machine (SRE workbook, chapter 2: good events / all events).
"""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

WINDOW_DAYS = 30
"""The window over which a target holds."""


@dataclass(frozen=True, slots=True)
class Match:
    """Receipts of one operation whose fields have these values; ``*`` matches any text."""

    operation: str
    where: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, receipt: Mapping[str, Any]) -> bool:
        """Whether a receipt is one of them."""
        return receipt["operation"] == self.operation and all(
            fnmatchcase(str(receipt.get(name, "")), wanted) for name, wanted in self.where.items()
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """One event: whether it was good, and its value, where it has one."""

    is_good: bool
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """One SLI of a runbook and its target.

    A receipt that ``events`` matches is an event. It is good where ``value``, less ``less``
    (names of fields), is at least ``least`` and below ``below``; without a
    value every one is good. A receipt that ``bad`` matches is a bad event. A receipt of an earlier
    release, which lacks the field, is no event; nor is a drill's.
    """

    name: str
    measure: str
    bar: str
    events: tuple[Match, ...]
    bad: tuple[Match, ...] = ()
    value: str = ""
    less: str = ""
    least: float = 0.0
    below: float = math.inf
    target: float = 0.99

    @property
    def unit(self) -> str:
        """What the value is in: milliseconds by its field's name, or a number of things."""
        return "ms" if self.value.endswith("_ms") else ""

    @property
    def operations(self) -> frozenset[str]:
        """The operations whose receipts may be events."""
        return frozenset(match.operation for match in (*self.events, *self.bad))

    @property
    def each_counts(self) -> bool:
        """Whether every miss counts: a target of 100 % leaves no budget, and has no burn rate."""
        return self.target >= 1

    def judge(self, receipt: Mapping[str, Any]) -> Judged | None:
        """What a receipt says of this objective; None where it is no event."""
        if receipt.get("drill"):
            return None
        if any(match(receipt) for match in self.bad):
            return Judged(is_good=False)
        if not any(match(receipt) for match in self.events):
            return None
        if not self.value:
            return Judged(is_good=True)
        value, less = receipt.get(self.value), receipt.get(self.less, 0)
        if value is None:
            return None
        return Judged(self.least <= value - less < self.below, float(value))


@dataclass(slots=True)
class Attainment:
    """How far an objective was met by the events added so far."""

    objective: Objective
    events: int = 0
    bad: int = 0
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, judged: Judged) -> None:
        """Count one event."""
        self.events += 1
        self.bad += not judged.is_good
        if judged.value is not None:
            self.values.append(judged.value)

    @property
    def attained(self) -> float | None:
        """The share of good events; None without any."""
        return 1 - self.bad / self.events if self.events else None

    @property
    def is_met(self) -> bool:
        """Whether the target holds; without events it does."""
        return self.attained is None or self.attained >= self.objective.target

    @property
    def budget_left(self) -> float | None:
        """The share of the error budget that is left, negative once it is overspent.

        None where there is no budget: every miss counts, or there were no events.
        """
        if self.objective.each_counts or not self.events:
            return None
        return 1 - self.bad / (self.events * (1 - self.objective.target))

    def quantile(self, share: float) -> float | None:
        """The value that this share of the events does not exceed (nearest rank); None: no value.

        ``share`` is above 0 and at most 1.
        """
        ordered = sorted(self.values)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
