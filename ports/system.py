"""The machine: its clock and its processes."""

from datetime import datetime
from typing import Protocol

from governor.records import ProcessClaim


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Aware, UTC."""
        ...

    def steady(self) -> datetime:
        """Aware, UTC; unaffected by changes of the wall clock since this process started.

        Order and proof go by it, so that a clock that is set moves neither.
        """
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
