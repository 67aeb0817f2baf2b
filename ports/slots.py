"""Places: who may act now, who is at it, and when to look at each: a part of Memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from governor.actions import Action
from governor.bake import Ending, Outcomes
from governor.quota import Verdict
from governor.records import ProcessClaim


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


class Slots(Protocol):
    """Who may act now (D8, D24), who is at it, and when to look at each. Each verb is atomic."""

    def admit(self, requests: Sequence[Request]) -> list[Admission]:
        """Check lease, mode, key, state, permission, duplicate, concurrency, month; take the slot.

        Each on its own, in order, sent together. Nothing is taken unless the verdict is ADMITTED.
        It is looked at in ``look_in_ms``.
        """
        ...

    def hold(self, slot: Slot, month: str, era: str, *, is_late: bool = False) -> None:
        """Take and count once more a slot that was admitted in another era; else do nothing.

        With ``is_late`` also one that the reaper has given away, because it was not stored in time.

        A rebuild under way does so when it ends, unless it has found it itself.
        """
        ...

    def is_watched(self, slot: Slot) -> bool:
        """Whether a look at a slot is planned."""
        ...

    def begin(self, slot: Slot, claim: ProcessClaim, look_in_ms: int) -> Verdict:
        """Note which process is at a slot's action, and when to look at it (D10).

        Where the slot is not known (any more), nothing is noted. Unless the verdict is ADMITTED
        (else NO_LEASE or DEGRADED) nothing may begin, and nothing was noted.
        """
        ...

    def begin_undo(self, slot: Slot, claim: ProcessClaim, look_in_ms: int) -> None:
        """Like ``begin``; the action counts as being undone, and its ledger as unsealed."""
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
        """How actions under a policy ended in the last 24 hours, as far as Memory knows."""
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

    def held_count(self) -> int:
        """How many actions are looked after: admitted, and not at their end."""
        ...

    def note_orphans(self, count: int) -> None:
        """How many actions were found past every age they may reach."""
        ...

    def orphans(self) -> int:
        """What was noted last."""
        ...
