"""Memory: fast shared state that can be lost and rebuilt: lease, slots, counters, notices.

Documents hold the truth. A missing lease refuses everything, and only a finished rebuild creates
one, so an emptied Memory never admits too much.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from governor.actions import Action
from governor.bake import Ending, Outcomes
from governor.quota import Verdict
from governor.records import ProcessClaim
from ports.alerts import Outbox
from ports.broadcasts import Broadcasts
from ports.health import Lease, Modes, Troubles, Watches


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


@dataclass(frozen=True, slots=True)
class Request:
    """One signal that asks to become an action."""

    account_id: str
    action_id: str
    signal_type: str
    entitlement_id: str | None
    sku_id: str | None
    signal_sha256: str
    month: str
    look_in_ms: int
    generation: int | None = None
    """Of the key that signed it; None where no key of the tenant's did."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer; ``entitlement_id`` and what follows are set when a signal found its entitlement.

    ``era`` names the lease under which it was given: a rebuild begins another. ``in_force`` is the
    plan's version in force where that is another one, which the entitlement has not refused.
    """

    verdict: Verdict
    entitlement_id: str = ""
    sku_id: str = ""
    plan_type: str = ""
    policy_version: str = ""
    era: str = ""
    in_force: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One action in flight."""

    account_id: str
    entitlement_id: str
    action_id: str

    @classmethod
    def of(cls, action: Action) -> "Slot":
        """The slot an action holds."""
        return cls(action.account_id, action.entitlement_id, action.action_id)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an action ended, and the digest of the policy that it began under."""

    policy_digest: str
    ending: Ending


@dataclass(frozen=True, slots=True)
class Due:
    """A slot the reaper shall look at; ``age_ms`` since its admission, where that is known."""

    slot: Slot
    age_ms: int | None


@dataclass(frozen=True, slots=True)
class Begun:
    """The action begun that was accepted last of all, and how long ago any was begun."""

    accepted_at: datetime
    ago_s: float


class Slots(Protocol):
    """Who may act now (D8, D24), who is at it, and when to look at each. Each verb is atomic."""

    def admit(self, request: Request) -> Admission:
        """Check lease, mode, key, state, permission, duplicate, concurrency, month; take the slot.

        Nothing is taken unless the verdict is ADMITTED. It is looked at in ``look_in_ms``.
        """
        ...

    def hold(self, slot: Slot, month: str, era: str) -> None:
        """Take and count once more a slot that was admitted in another era; else do nothing.

        A rebuild under way does so when it ends. What it had found itself is counted twice: a
        limit may refuse too early after a loss, rather than too late.
        """
        ...

    def is_watched(self, slot: Slot) -> bool:
        """Whether a look at a slot is planned."""
        ...

    def begin(
        self, slot: Slot, claim: ProcessClaim, look_in_ms: int, *, accepted_at: datetime
    ) -> Verdict:
        """Note which process is at a slot's action, and when to look at it (D10).

        Where the slot is not known (any more), only ``accepted_at`` is noted: how far the queue,
        which is first come, first served, has got. Unless the verdict is ADMITTED (else NO_LEASE or
        DEGRADED) nothing may begin, and nothing was noted.
        """
        ...

    def begin_undo(self, slot: Slot, claim: ProcessClaim, look_in_ms: int) -> None:
        """Like ``begin``; the action counts as being undone, and its ledger as unsealed."""
        ...

    def last_begun(self) -> Begun | None:
        """How far the queue has got; None after a loss."""
        ...

    def look_again(self, slot: Slot, in_ms: int) -> None:
        """Move a slot's next look; one that was released stays so."""
        ...

    def release(
        self,
        slot: Slot,
        *,
        refund_month: str | None = None,
        look_in_ms: int | None = None,
        ended: Ended | None = None,
    ) -> None:
        """Give a slot back, and mark its account's ledger as unsealed: no end without a receipt.

        Args:
            slot: the slot.
            refund_month: as if it had never been asked for. The month is the one it was counted
                in, as far as Memory remembers; else this.
            look_in_ms: its action is not over: it is looked at again, without holding a place.
            ended: how it ended, and under which policy; counted once, with the place it gives back.
        """
        ...

    def outcomes(self, policy_digest: str) -> Outcomes:
        """How actions under a policy ended, in the last two weeks or since Memory was lost."""
        ...

    def due(self, limit: int) -> list[Due]:
        """Slots whose look is due, longest overdue first."""
        ...

    def claims(self) -> list[tuple[Slot, ProcessClaim]]:
        """Which process is at which slot's action, as far as was noted."""
        ...

    def restore_slots(self, held: Sequence[Slot], looked_at: Sequence[Slot]) -> None:
        """Put back, after a loss, slots in flight and slots that only need a look; all due now."""
        ...

    def note_orphans(self, count: int) -> None:
        """How many actions were found past every age they may reach."""
        ...

    def orphans(self) -> int:
        """What was noted last."""
        ...


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

    def mark_unsealed(self, account_id: str) -> None:
        """A receipt was committed to this account's ledger."""
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


class Announcements(Protocol):
    """Ends of runs, announced to the ingress."""

    def announce(self, run_id: str) -> None:
        """Wake every request that waits for the end of this run."""
        ...


class Memory(
    Slots,
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
    Protocol,
):
    """All of it. Every verb raises OutageError when Memory does not answer in time."""

    def close(self) -> None:
        """Let go of every connection of this process."""
        ...


class Notices(Protocol):
    """The listening half of ``announce``, for an event loop."""

    def ended_runs(self) -> AsyncIterator[str]:
        """Ids of runs as they end, until the connection breaks; what ends meanwhile is missed."""
        ...
