"""Memory: fast shared state that can be lost and rebuilt: lease, slots, counters, notices.

Documents hold the truth. A missing lease refuses everything, and only a finished rebuild creates
one, so an emptied Memory never admits too much.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from governor.quota import Verdict


@dataclass(frozen=True, slots=True)
class Terms:
    """What admission must know of one entitlement."""

    sku_id: str
    plan_type: str
    policy_version: str
    concurrent_actions: int
    monthly_actions: int
    signal_types: Sequence[str]


@dataclass(frozen=True, slots=True)
class Request:
    """One signal that asks to become an action."""

    account_id: str
    action_id: str
    signal_type: str
    sku_id: str | None
    signal_sha256: str
    month: str
    queue_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer; ``sku_id`` and what follows are set when the signal found its entitlement."""

    verdict: Verdict
    sku_id: str = ""
    plan_type: str = ""
    policy_version: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One action in flight."""

    account_id: str
    sku_id: str
    action_id: str


class Slots(Protocol):
    """Who may act now (D8, D24). Each verb is atomic."""

    def admit(self, request: Request) -> Admission:
        """Check lease, mode, state, permission, duplicate, concurrency, month; take the slot.

        Nothing is taken unless the verdict is ADMITTED. The slot's deadline is now + queue timeout.
        """
        ...

    def keep(self, slot: Slot, deadline_in_ms: int) -> None:
        """Move a slot's deadline to now + ``deadline_in_ms`` (the claim does, D10)."""
        ...

    def release(self, slot: Slot, *, refund_month: str | None = None) -> None:
        """Give a slot back; with ``refund_month`` as if it had never been asked for.

        The month is the one it was counted in, as far as Memory remembers; else ``refund_month``.
        """
        ...

    def overdue(self, limit: int) -> list[Slot]:
        """Slots past their deadline, longest overdue first."""
        ...

    def set_rolling_back(self, slot: Slot, rolling: bool) -> None:
        """Note that an action is being undone, for the governor's derived state."""
        ...


class Governors(Protocol):
    """What admission knows of each governor; rebuilt from Documents after a loss."""

    def boot(self, account_id: str, state: str, terms: Sequence[Terms]) -> None:
        """Replace what Memory knows of one governor."""
        ...

    def forget(self, account_id: str) -> None:
        """Drop a governor; its signals are then those of an unknown tenant."""
        ...

    def in_flight(self, account_id: str, sku_ids: Sequence[str]) -> int:
        """How many slots a governor's entitlements hold."""
        ...

    def used(self, account_id: str, sku_id: str, month: str) -> int:
        """Actions counted against a month's quota."""
        ...

    def rolling_back(self, account_id: str) -> int:
        """How many actions of a governor are being undone."""
        ...

    def restore(self, slots: Sequence[Slot], used: Mapping[tuple[str, str, str], int]) -> None:
        """Put back slots and (account, sku, month) use after a loss, before the lease returns."""
        ...


class Lease(Protocol):
    """Health as a lease: without it everything is refused. And who worked lately."""

    def extend_lease(self, seconds: int) -> bool:
        """Lengthen the lease; False when there is none (a rebuild must come first)."""
        ...

    def create_lease(self, seconds: int) -> None:
        """Begin admitting; the last act of a rebuild."""
        ...

    def lease_left_s(self) -> float:
        """Seconds the lease still lasts; 0 when there is none."""
        ...

    def claim_tick(self, name: str, seconds: float) -> bool:
        """True for one caller within ``seconds``: two beats at once do no harm."""
        ...

    def beat_alive(self, component: str, seconds: int) -> None:
        """A component did its work just now."""
        ...

    def alive(self, components: Sequence[str]) -> dict[str, bool]:
        """Which components did their work lately."""
        ...


class Tallies(Protocol):
    """Refusals, counted exactly (D7)."""

    def count(self, ledger: str, reason: str, batch: str) -> None:
        """Add one refusal to a ledger (``operation:account``); once, however often it is told.

        ``batch`` names this very refusal.
        """
        ...

    def take_counts(self, window: str) -> dict[str, dict[str, dict[str, int]]]:
        """Freeze what was counted as ``window``; every window not dropped yet, ledger by reason."""
        ...

    def drop_counts(self, window: str) -> None:
        """Forget a window whose receipts are committed."""
        ...


class Unsealed(Protocol):
    """Accounts with receipts that may not be sealed yet: hints, rebuilt by a reconcile."""

    def mark_unsealed(self, account_id: str) -> None:
        """A receipt was committed to this account's ledger."""
        ...

    def take_unsealed(self, limit: int, hold_s: int) -> list[tuple[str, str]]:
        """Marked accounts with a token each.

        Nobody else is given them for ``hold_s``, unless they are marked again; after that they
        are given again, because whoever took them has died.
        """
        ...

    def sealed(self, account_id: str, token: str) -> None:
        """Drop the mark that was taken with ``token``; one made since stays."""
        ...

    def unsealed_count(self) -> int:
        """How many accounts are marked or taken."""
        ...


class Memory(Slots, Governors, Lease, Tallies, Unsealed, Protocol):
    """All of it. Every verb raises OutageError when Memory does not answer in time."""

    def announce(self, run_id: str) -> None:
        """Tell whoever waits that a run ended."""
        ...

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...


class Notices(Protocol):
    """The listening half of ``announce``, for an event loop."""

    def ended_runs(self) -> AsyncIterator[str]:
        """Ids of runs as they end, until the connection breaks; what ends meanwhile is missed."""
        ...
