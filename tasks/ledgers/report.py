"""What became of an audit."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger.checkpoint import Checkpoint
from ledger.verify import Check, Finding

MAX_FINDINGS = 1000
"""Findings that are kept; more are only counted."""

MAX_CLOCKS = 100_000
"""Receipts of clocks that were off that are told apart: a ledger of any length is audited."""


@dataclass
class Report:
    """What became of an audit.

    ``sealed`` leaves are signed, ``last`` is the seal that was read last, ``left_over`` are ids of
    receipts no leaf was found for, ``checkpoint`` is the newest note. ``clocks`` are the receipts
    made by a clock that was off, at most ``MAX_CLOCKS`` of them, and ``clock_off_s`` is by how much
    the worst was; that breaks nothing (D13).
    """

    account_id: str
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    read: int = 0
    last: int = 0
    left_over: list[str] = field(default_factory=list)
    extends: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0
    clocks: set[str] = field(default_factory=set)
    clock_off_s: float = 0.0
    checkpoint: str | None = None
    tree: Checkpoint | None = None

    @property
    def is_valid(self) -> bool:
        """Whether everything that was looked at holds."""
        return not self.findings

    @property
    def clock_off(self) -> int:
        """How many receipts a clock that was off has made; ``MAX_CLOCKS`` means that or more."""
        return len(self.clocks)

    def words(self) -> str:
        """The verdict in a line."""
        if not self.is_valid:
            return "broken"
        return f"valid{clock_words(self.clock_off, self.clock_off_s)}"

    def add(self, found: Iterable[Finding]) -> None:
        """Keep findings, as far as there is room."""
        for finding in found:
            if finding.check is Check.CLOCK:
                self.clock_off_s = max(self.clock_off_s, finding.off_s)
                if len(self.clocks) < MAX_CLOCKS:
                    self.clocks.add(finding.subject)
            elif len(self.findings) < MAX_FINDINGS:
                self.findings.append(finding)
            else:
                self.more_findings += 1


def clock_words(count: int, off_s: float) -> str:
    """What a verdict says of clocks that were off; nothing where none was."""
    if not count:
        return ""
    at_least = "at least " if count >= MAX_CLOCKS else ""
    return f", clock off by up to {off_s:.0f} s in {at_least}{count} receipts"
