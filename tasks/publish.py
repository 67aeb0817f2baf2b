"""Messages, sent by the name of their task: no engine imports a task, so no circle can arise.

The reaper repeats a lost message, so a broker that is away is no error for the sender.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import celery
from celery.exceptions import OperationalError as CeleryUnreachable
from kombu.exceptions import OperationalError as BrokerUnreachable

from governor import actions as rules
from governor.actions import Action
from governor.runs import Run
from ports.dispatch import Call
from tasks.celery import ACTIONS, HEALTH, LEDGER, PUBLISH_ONCE, app

_LOG = logging.getLogger("ggen.broker")


def call(limit_ms: int, asked: Call) -> None:
    """Call processes that carry out actions of one hard limit."""
    # Each takes actions for half a second, and the last of them may last as long as it may.
    within_s = limit_ms / 1000 + 0.5
    kwargs = {"limit_ms": limit_ms, "called_in": asked.round}
    for _ in range(asked.count):
        _send("dispatch.bell", ACTIONS, kwargs, within_s, "a list of actions")


def roll_back(action: Action) -> None:
    """Have an action undone."""
    kwargs = shown(action)
    limit_s = rules.hard_limit_ms(action) / 1000
    task = "recover_action.roll_back"
    _send(task, ACTIONS, kwargs, limit_s, f"action {action.action_id}")


def shown(action: Action) -> dict[str, str]:
    """What Flower shows of an action, and finds it by; never a payload."""
    return {
        "account_id": action.account_id,
        "action_id": action.action_id,
        "signal_type": action.signal_type,
        "handler": action.handler,
        "sku_id": action.sku_id,
        "entitlement_id": action.entitlement_id,
    }


def chain(run: Run, links: Sequence[tuple[str, float]]) -> None:
    """Have a run go on: its tasks, one after the other, each with its time limit in seconds."""
    kwargs = {"account_id": run.account_id, "run_id": run.run_id}
    tasks = [
        app.signature(
            name,
            kwargs=kwargs,
            immutable=True,
            time_limit=limit_s,
            retry_policy=PUBLISH_ONCE,
        )
        for name, limit_s in links
    ]
    with _no_broker(f"run {run.run_id}"):
        celery.chain(*tasks).apply_async()


def transition(task: str, kwargs: Mapping[str, Any]) -> None:
    """Have safe mode entered or left."""
    _send(task, HEALTH, kwargs, None, task, "the next check")


def topics() -> None:
    """Have the topics of all governors looked at."""
    _send("repair.topics", LEDGER, {}, None, "a look at all topics", "the daily one")


def _send(
    task: str,
    queue: str,
    kwargs: Mapping[str, Any],
    time_limit: float | None,
    what: str,
    until: str = "the reaper",
) -> None:
    with _no_broker(what, until):
        app.send_task(
            task,
            kwargs=dict(kwargs),
            queue=queue,
            time_limit=time_limit,  # type: ignore[arg-type]  # Celery takes fractions too
            retry_policy=PUBLISH_ONCE,
        )


@contextlib.contextmanager
def _no_broker(what: str, until: str = "the reaper") -> Iterator[None]:
    """A broker that is away is no error for the sender: somebody sends it again."""
    try:
        yield
    except (CeleryUnreachable, BrokerUnreachable, OSError) as error:
        _LOG.warning("%s waits for %s: no broker (%s)", what, until, error)
