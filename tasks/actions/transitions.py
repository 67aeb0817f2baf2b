"""What executing, recovering and reaping an action share."""

import contextlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from ggen_governor.handlers import ActionContext, registered
from governor import actions as rules
from governor import paths
from governor.actions import Action
from governor.bake import ending_of
from governor.errors import ActionError, ConflictError, OutageError
from governor.quota import Verdict
from governor.records import ProcessClaim
from governor.times import elapsed_ms
from ports import Ports
from ports.documents import Create, Update, Write
from ports.slots import Ended, Slot
from tasks.receipts import spool
from tasks.receipts.commit import commit_once, refuse_if_stale
from tasks.receipts.fence import or_kill_self

_LOG = logging.getLogger("ggen.actions")


@dataclass(frozen=True, slots=True)
class Held:
    """An action as it was last read or written, and the revision that fences its next move.

    With ``spooled`` commits of it waiting there is none: the next must be spooled behind them.
    """

    action: Action
    revision: str
    spooled: int = 0


def load(ports: Ports, account_id: str, action_id: str) -> Held | None:
    """An action as it is now; None when there is none."""
    found = ports.documents.get(paths.action_path(account_id, action_id))
    return Held(known(Action.stored(found.data)), found.revision) if found else None


def known(action: Action) -> Action:
    """An action that says whether it can be undone; of release 0.1.0's, its handler is asked."""
    if action.has_rollback is not None:
        return action
    handler = registered().get(action.handler)
    return action.evolve(has_rollback=handler is None or handler.undo is not None)


def path_of(action: Action) -> str:
    """Where an action's document lies."""
    return paths.action_path(action.account_id, action.action_id)


def note_begun(ports: Ports, action: Action, claim: ProcessClaim) -> bool:
    """Tell the reaper who is about to begin an action, and how long that may last (D10).

    The worker does so before it commits the claim: if it dies in between, it has started nothing.
    False where nothing new may begin now: the action stays as it is, and the reaper deals with it
    afterwards.
    """
    try:
        verdict = ports.slots.begin(Slot.of(action), claim, rules.look_in_ms(action))
    except OutageError as error:
        _LOG.warning("action %s is not begun: %s", action.action_id, error)
        return False
    if verdict is not Verdict.ADMITTED:
        _LOG.warning("action %s is not begun: %s", action.action_id, verdict)
    return verdict is Verdict.ADMITTED


def note_undo(ports: Ports, action: Action, claim: ProcessClaim) -> None:
    """Tell the reaper who is about to undo an action."""
    with contextlib.suppress(OutageError):
        ports.slots.begin_undo(Slot.of(action), claim, rules.look_in_ms(action))


def is_abandoned(ports: Ports, action: Action, claim: ProcessClaim) -> bool:
    """Whether the process of a claim cannot act any more.

    From another host or container that cannot be seen; past the hard limit, Celery has killed it.
    """
    now = ports.clock.now()
    if ports.processes.sees(claim):
        return ports.processes.is_gone(claim)
    return elapsed_ms(claim.claimed_at, now) >= rules.look_in_ms(action)


def free_slot(ports: Ports, action: Action, *, look_in_ms: int | None = None) -> None:
    """Give the slot of an ended action back; where Memory is away the reaper does it later."""
    try:
        ports.slots.release(Slot.of(action), look_in_ms=look_in_ms, ended=counted(action))
    except OutageError as error:
        _LOG.warning("the slot of %s waits for the reaper: %s", action.action_id, error)


def counted(action: Action) -> Ended | None:
    """As what an ended action counts for its policy; None where it says nothing of that."""
    ending = ending_of(action)
    return Ended(action.policy_digest, ending) if action.policy_digest and ending else None


def names(action: Action) -> dict[str, Any]:
    """What every receipt of an action says of it."""
    return {
        "action_id": action.action_id,
        "entitlement_id": action.entitlement_id,
        "sku_id": action.sku_id,
        "signal_type": action.signal_type,
    }


def end_fields(action: Action) -> dict[str, Any]:
    """What every receipt of an action's end says of it."""
    return {
        **names(action),
        "handler": action.handler,
        "policy_version": action.policy_version,
        "policy_digest": action.policy_digest,
        "queue_ms": action.queue_ms or 0,
        "run_ms": action.run_ms or 0,
    }


def context_of(action: Action, deadline_s: float) -> ActionContext:
    """The context that a handler or its rollback gets; ``deadline_s`` on the monotonic clock."""
    return ActionContext(
        action.account_id,
        action.sku_id,
        action.action_id,
        action.signal_id,
        deadline_s,
        json.loads(action.result) if action.result else None,
        json.loads(action.learned) if action.learned else {},
        action.entitlement_id,
    )


def log_failure(action: Action, what: str, error: BaseException) -> None:
    """One line in the log where the handler said itself how it failed; else its traceback too."""
    is_said = isinstance(error, ActionError) and error.__cause__ is None
    _LOG.error(
        "action %s of %s: its %s %s failed: %s: %s",
        action.action_id,
        action.account_id,
        what,
        action.handler,
        type(error).__name__,
        error,
        exc_info=None if is_said else error,
    )


def claim(ports: Ports, held: Held, claimed: Action) -> Held | None:
    """Commit a claim; None when another process was first.

    A claim that may or may not have landed counts as an unknown outcome: its process dies.
    """

    def take() -> Held | None:
        try:
            return commit(ports, held, claimed)
        except ConflictError:
            return None

    return or_kill_self(take)


def commit(
    ports: Ports, held: Held, after: Action, *also: Write, asks_for_seal: bool = True
) -> Held:
    """Commit an action's next state with its receipts, if no process moved it since ``held``.

    What else is written with it has preconditions of its own.

    Raises:
        ConflictError: another process did; nothing was written (D18: late results are refused).
        OutageError: no answer in time; it MAY HAVE LANDED.
    """
    patience_s = ports.times.store_timeout_s
    revision, *_ = commit_once(
        ports, writes(held, after, *also), asks_for_seal=asks_for_seal, patience_s=patience_s
    )
    return Held(after, revision)


def writes(held: Held, after: Action, *also: Write) -> list[Write]:
    """An action's next state, if no process moved it since ``held``, and what goes with it."""
    return [Update(path_of(after), after.document(), held.revision), *also]


def commit_or_spool(
    ports: Ports, held: Held, after: Action, *proofs: Create, was_tried: bool = False
) -> Held:
    """Commit what only this process knows of its action, now or, while the store is away, later.

    Raises:
        ConflictError: as ``commit``.
        OutageError: the spool did not answer either; both may have it.
    """
    refuse_if_stale(ports, proofs)
    if not held.spooled and not was_tried:
        try:
            return commit(ports, held, after, *proofs, asks_for_seal=False)
        except OutageError as error:
            _LOG.warning("the end of %s is spooled: %s", after.action_id, error)
    follows = held.action.document() if held.spooled else None
    number = held.spooled + 1
    told = writes(held, after, *proofs)
    spool.put(ports, after.account_id, after.action_id, number, told, follows=follows)
    return Held(after, "", number)
