"""What executing, recovering and reaping an action share."""

import logging
from typing import Any

from celery.exceptions import OperationalError as CeleryUnreachable
from kombu.exceptions import OperationalError as BrokerUnreachable

from governor import actions as rules
from governor import records
from governor.errors import ConflictError, OutageError
from governor.records import Action
from ports import Ports
from ports.documents import Create, Document, Update
from ports.memory import Slot
from tasks.celery import PUBLISH_ONCE
from tasks.emit import land
from tasks.fence import or_die
from tasks.handlers import ActionContext

_LOG = logging.getLogger("ggen.actions")


def publish(task: Any, action: Action) -> None:
    """Hand an action's ids to the actions worker. A lost message is repeated by the reaper."""
    try:
        task.apply_async(
            kwargs={"account_id": action.account_id, "action_id": action.action_id},
            time_limit=rules.hard_limit_ms(action) / 1000,
            retry_policy=PUBLISH_ONCE,
        )
    except (CeleryUnreachable, BrokerUnreachable, OSError) as error:
        _LOG.warning("action %s waits for the reaper: no broker (%s)", action.action_id, error)


def path_of(action: Action) -> str:
    """Where an action's document lies."""
    return records.action_path(action.account_id, action.action_id)


def slot_of(action: Action) -> Slot:
    """The slot an action holds."""
    return Slot(action.account_id, action.sku_id, action.action_id)


def keep_slot(ports: Ports, action: Action) -> None:
    """Let a slot last as long as its started action may (D10)."""
    try:
        ports.memory.keep(slot_of(action), rules.hard_limit_ms(action) + rules.SLOT_MARGIN_MS)
    except OutageError:
        pass  # the reaper believes documents, not slots


def free_slot(ports: Ports, action: Action) -> None:
    """Give the slot of an ended action back; where Memory is away the reaper does it later."""
    try:
        ports.memory.release(slot_of(action))
    except OutageError as error:
        _LOG.warning("the slot of %s waits for the reaper: %s", action.action_id, error)


def end_fields(action: Action) -> dict[str, Any]:
    """What every receipt of an action's end says of it."""
    return {
        "action_id": action.action_id,
        "sku_id": action.sku_id,
        "signal_type": action.signal_type,
        "handler": action.handler,
        "policy_version": action.policy_version,
        "queue_ms": action.queue_ms or 0,
        "run_ms": action.run_ms or 0,
    }


def context_of(action: Action, deadline_s: float) -> ActionContext:
    """What a handler is told; ``deadline_s`` on the monotonic clock."""
    return ActionContext(
        action.account_id, action.sku_id, action.action_id, action.signal_id, deadline_s
    )


def claim(ports: Ports, found: Document, claimed: Action) -> bool:
    """Commit a claim; False when somebody was first.

    A claim that may have landed is as good as an outcome nobody can tell: its process dies.
    """
    won = False

    def take() -> None:
        nonlocal won
        try:
            land(ports, [Update(found.path, claimed.document(), found.revision)])
            won = True
        except ConflictError:
            won = False

    or_die(take)
    return won


def land_end(ports: Ports, before: Action, after: Action, *proofs: Create) -> None:
    """Commit an action's next state with its receipts, if nobody moved it since ``before``.

    Raises:
        ConflictError: somebody did; nothing was written (D18: late results are refused).
        OutageError: no answer in time; it MAY HAVE LANDED.
    """
    found = ports.documents.get(path_of(before))
    stored = Action.model_validate(found.data) if found else None
    if found is None or stored is None or (stored.state, stored.claim) != (
        before.state, before.claim
    ):  # fmt: skip
        raise ConflictError("fenced", f"action {before.action_id} was moved by somebody else")
    land(ports, [Update(found.path, after.document(), found.revision), *proofs])
