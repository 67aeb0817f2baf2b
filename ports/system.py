"""The machine: its clock and its processes."""

from datetime import datetime
from typing import Protocol

from governor.records import ProcessClaim


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Aware, UTC; one time for all processes of a machine.

        Unaffected where the machine's clock is set by more than some seconds. A process that
        begins on a machine whose clock differs by more than that from Memory's goes by Memory's.
        """
        ...

    def machine(self) -> datetime:
        """Aware, UTC: the machine's clock as somebody may have set it; to be compared alone."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; system-wide, so processes may compare them."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Processes(Protocol):
    """Which process acts, and whether it still lives."""

    def claim(self, at: datetime) -> ProcessClaim:
        """A claim in this process's name."""
        ...

    def kill(self, claim: ProcessClaim) -> None:
        """End exactly the claim's process, if it lives on this host; at once, with SIGKILL."""
        ...

    def is_gone(self, claim: ProcessClaim) -> bool:
        """True when the claim's process certainly ended; False on another host or in doubt."""
        ...

    def sees(self, claim: ProcessClaim) -> bool:
        """Whether the claim's process could be seen from here: same host, same process ids."""
        ...

    def age_s(self) -> float:
        """How long this very process has been running."""
        ...
