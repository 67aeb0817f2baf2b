"""Memory: fast shared state that can be lost and rebuilt: lease, slots, counters, notices.

Documents hold the truth. A missing lease refuses everything, and only a finished rebuild creates
one, so an emptied Memory never admits too much.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ports.alerts import Outbox
from ports.broadcasts import Broadcasts
from ports.dispatch import Dispatch
from ports.health import Lease, Modes, Troubles, Watches
from ports.loads import Loads
from ports.measures import Measures
from ports.slots import Slots


@dataclass(frozen=True, slots=True)
class Terms:
    """What admission must know of one entitlement."""

    entitlement_id: str
    sku_id: str
    plan_type: str
    policy_version: str
    concurrent_actions: int
    monthly_actions: int
    signal_types: Sequence[str]
    state: Literal["active", "suspended", "draining"] = "active"
    refused_policy: str = ""
    """Digest of the version that did not fit it, and is not offered to it again."""


class Governors(Protocol):
    """What admission knows of each governor; rebuilt from Documents after a loss."""

    def begin_boot(self) -> str:
        """A ticket for one boot, to be taken before the stores are read for it.

        Who began later knows more: a boot never replaces what a later one has brought.
        """
        ...

    def boot(
        self,
        account_id: str,
        ticket: str,
        state: str,
        terms: Sequence[Terms],
        generation: int = 1,
    ) -> bool:
        """Replace what Memory knows of one governor, whose key alone may sign.

        False: a boot that began later was here, or Memory was lost since the ticket was taken;
        nothing was changed.
        """
        ...

    def forget(self, account_id: str, ticket: str) -> bool:
        """Drop a governor; its signals are then those of an unknown tenant. False as for boot."""
        ...

    def remembers_s(self) -> float:
        """For how long Memory has lost nothing, as of the last ``begin_boot``; 0 before any."""
        ...

    def held(self, account_id: str, entitlement_id: str) -> Sequence[str]:
        """Ids of the actions that hold a slot of an entitlement, stored or about to be."""
        ...

    def in_flight(self, account_id: str, entitlement_ids: Sequence[str]) -> int:
        """How many slots a governor's entitlements hold."""
        ...

    def used(self, account_id: str, entitlement_id: str, month: str) -> int:
        """Actions counted against a month's quota."""
        ...

    def rolling_back(self, account_id: str) -> int:
        """How many actions of a governor are being undone."""
        ...

    def restore_use(self, used: Mapping[tuple[str, str, str], int]) -> None:
        """Put back (account, sku, month) use after a loss; what was counted higher stays."""
        ...


class Tallies(Protocol):
    """Refusals, counted exactly (D7)."""

    def count(
        self, ledger: str, reason: str, batch: str, refused_for: str = "", *, era: str | None = None
    ) -> str:
        """Add one refusal to a ledger (``operation:account``); repeats count once.

        ``batch`` names this very refusal. ``refused_for`` is the account of a signal that was
        refused because a store did not answer: ``Modes.health`` counts it too. The answer is
        Memory's epoch. A caller that repeats the refusal passes that answer as ``era``. A Memory
        that lost all data meanwhile does not count it, because it may be receipted already.
        """
        ...

    def written_down(self) -> str:
        """Wait until all that was counted is on the server's disk; which server that is.

        Another answer than before: the server was started again, and may have lost the last second
        of what was counted before.

        Raises:
            OutageError: it does not write, or does not answer.
        """
        ...

    def forget_batches(self, batches: Sequence[str]) -> None:
        """Forget the names of refusals that will not be counted again."""
        ...

    def take_counts(self, window: str) -> dict[str, dict[str, dict[str, int]]]:
        """Freeze what was counted as ``window``; every window not dropped yet, ledger by reason.

        It is on the disk before it is given: a server that dies afterwards still knows it as taken.
        """
        ...

    def drop_counts(self, window: str) -> None:
        """Forget a window whose receipts are committed."""
        ...


class Unsealed(Protocol):
    """Accounts with receipts that may not be sealed yet: hints, rebuilt by a reconcile."""

    def mark_unsealed(self, *account_ids: str, is_one_of_many: bool = False) -> None:
        """Receipts were committed to these accounts' ledgers.

        ``is_one_of_many``: by a commit about many accounts; they are taken after all others.
        """
        ...

    def take_unsealed(self, limit: int, hold_s: int) -> list[tuple[str, str]]:
        """Marked accounts with a token each.

        No other caller gets them for ``hold_s``, unless they are marked again. After that they are
        given again, because the process that took them has died or failed.
        """
        ...

    def sealed(self, account_id: str, token: str) -> None:
        """Drop the mark that was taken with ``token``; one made since stays."""
        ...

    def unsealed_count(self) -> int:
        """How many accounts are marked or taken."""
        ...

    def sealed_ago_s(self) -> float:
        """How long ago any ledger was sealed; 0 where none waits for it."""
        ...


class Announcements(Protocol):
    """Ends of runs, announced to the ingress."""

    def announce(self, run_id: str) -> None:
        """Wake every request that waits for the end of this run."""
        ...


class Memory(
    Slots,
    Dispatch,
    Governors,
    Lease,
    Modes,
    Watches,
    Troubles,
    Outbox,
    Tallies,
    Unsealed,
    Announcements,
    Broadcasts,
    Loads,
    Measures,
    Protocol,
):
    """All of it. Every verb raises OutageError when Memory does not answer in time."""

    def answered_s(self) -> float:
        """When a script of this process was answered last, by its monotonic clock; 0: never."""
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...


class Notices(Protocol):
    """The listening half of ``announce``, for an event loop."""

    def ended_runs(self) -> AsyncIterator[str]:
        """Ids of runs as they end, until the connection breaks; what ends meanwhile is missed."""
        ...
