"""The part of Memory that says whether the system may act: lease, mode, failures, drills."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from governor.health import Drill, Outage, Scope
from governor.quota import Verdict


@dataclass(frozen=True, slots=True)
class Health:
    """What Memory knows of one scope.

    ``failures`` in a row began at ``failing_since``, after ``good`` successes and recoveries.
    ``outage`` is the one that is open.
    ``refused`` counts signals refused since the last good check began, by account. ``accepted``
    counts those admitted since ``outage`` began; None where Memory was lost since.
    """

    is_degraded: bool = False
    failures: int = 0
    failing_since: str = ""
    good: int = 0
    error_code: str = ""
    error_detail: str = ""
    outage: Outage | None = None
    refused: dict[str, int] = field(default_factory=dict)
    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """An outage that is over and not receipted yet, and what it refused, by account."""

    outage: Outage
    refused: dict[str, int]


class Lease(Protocol):
    """Health as a lease: without it everything is refused, by itself."""

    def extend_lease(self, seconds: float) -> bool:
        """Lengthen the lease, or begin one that ran out; False when Memory was lost since.

        Then a rebuild must come first.
        """
        ...

    def begin_rebuild(self, seconds: int) -> str | None:
        """The era to begin; None while another rebuild went on within its ``seconds``."""
        ...

    def continue_rebuild(self, era: str, seconds: int) -> bool:
        """Go on for ``seconds`` more (0: give up); False where Memory was lost again meanwhile."""
        ...

    def create_lease(self, seconds: float, era: str, at: str) -> bool:
        """Begin admitting, the last act of a rebuild; False as ``continue_rebuild``.

        What is owed for all tenants ends in this moment, ``at``, with what was refused until now.
        """
        ...

    def lease_left_s(self) -> float:
        """Seconds the lease still lasts; 0 when there is none."""
        ...

    def standing(self, account_id: str) -> Verdict:
        """Whether an account's runs may act now: ADMITTED, DEGRADED or NO_LEASE."""
        ...


class Modes(Protocol):
    """What checks found, and what follows from it. One checker at a time (``claim_tick``)."""

    def health(self, scope: Scope) -> Health:
        """What Memory knows of a scope."""
        ...

    def note_failure(
        self, scope: Scope, seen: Health, began: str, error_code: str, error_detail: str
    ) -> int:
        """The check that began then has failed; how many it are in a row.

        Not counted where another has succeeded, or an outage has ended, since ``seen``.
        """
        ...

    def note_success(self, scope: Scope, seen: Health) -> None:
        """Forget failures, and the refusals ``seen`` before the check began."""
        ...

    def degrade(self, scope: Scope, outage: Outage, *, instead_of: Outage | None) -> bool:
        """Refuse everything new of a scope, from now on; ``outage`` says why.

        False, and nothing is changed, where another outage is open than ``instead_of``.
        """
        ...

    def owe(
        self, scope: Scope, outage: Outage, *, instead_of: Outage | None, lease_s: float = 0
    ) -> bool:
        """Back to normal; in the same moment it is owed to receipt ``outage`` and what it refused.

        With ``lease_s`` the lease is lengthened in that moment too, unless a rebuild must come
        first: so no other check finds neither an outage nor a lease. False, and nothing is changed,
        as for ``degrade``; and for an outage that no check saw (``instead_of`` None) where the
        lease is held again, or where one is owed and a rebuild must come first.
        """
        ...

    def owed(self, scope: Scope) -> list[Owed]:
        """Outages that are over and not receipted yet."""
        ...

    def receipted(self, scope: Scope, outage_id: str) -> None:
        """An outage was receipted."""
        ...

    def note_spooled(self, count: int | None = None) -> None:
        """One more commit waits in the spool; or exactly so many do."""
        ...

    def spooled(self) -> int:
        """How many commits wait in the spool, as far as was noted."""
        ...

    def begin_drill(self, drill: Drill, seconds: float) -> bool:
        """Have Documents fail on purpose; False while another drill goes on."""
        ...

    def end_drill(self, drill_id: str) -> None:
        """End a drill before its time."""
        ...

    def drill(self) -> Drill | None:
        """The drill that goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A component did its work ``ago_s`` ago; for ``streak_s`` it has always been believed to."""

    ago_s: float
    streak_s: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that waits for the operator; ``name`` is ``cause/subject``.

    ``blocks`` says that work is refused because of it; ``count`` how often it was noted.
    """

    name: str
    detail: str
    blocks: bool
    since_s: float
    count: int


class Troubles(Protocol):
    """What the operator should know until it is gone."""

    def note_trouble(self, name: str, detail: str, *, blocks: bool, seconds: float) -> bool:
        """It is there now, and forgotten in ``seconds`` unless noted again; whether it is new."""
        ...

    def end_trouble(self, name: str) -> None:
        """It is gone."""
        ...

    def troubles(self) -> list[Trouble]:
        """Every trouble that was noted lately, by name."""
        ...


class Watches(Protocol):
    """Who worked lately."""

    def time(self) -> datetime:
        """What Memory's server has for the time: a peer's clock to compare one's own with."""
        ...

    def claim_tick(self, name: str, seconds: float) -> bool:
        """True for one caller within ``seconds``: two beats at once do no harm."""
        ...

    def drop_tick(self, name: str) -> None:
        """Let the next caller have a tick before its time."""
        ...

    def beat_alive(self, component: str, seconds: float) -> None:
        """A component did its work just now, which is to be believed for ``seconds``."""
        ...

    def alive(self, components: Sequence[str]) -> dict[str, bool]:
        """Which components did their work lately."""
        ...

    def seen(self, components: Sequence[str]) -> dict[str, Seen | None]:
        """When each did its work last; None where nothing is known of it."""
        ...
