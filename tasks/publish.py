"""Messages, sent by the name of their task: no engine imports a task, so no circle can arise.

The reaper repeats a lost message, so a broker that is away is no error for the sender.
"""

import logging
from collections.abc import Mapping

from celery.exceptions import OperationalError as CeleryUnreachable
from kombu.exceptions import OperationalError as BrokerUnreachable

from governor import actions as rules
from governor.actions import Action
from governor.runs import Run
from tasks.celery import ACTIONS, LEDGER, PUBLISH_ONCE, RUNBOOKS, app

_LOG = logging.getLogger("ggen.broker")
RUN_TIME_LIMIT_S = 30
"""A process that hangs in a step is killed before anybody may take the step over. A step may look
and then act for 10 s each where Pub/Sub does not answer."""


def execute(action: Action) -> None:
    """Have an action carried out."""
    _action("execute_action.run", action)


def roll_back(action: Action) -> None:
    """Have an action undone."""
    _action("recover_action.roll_back", action)


def run(run: Run) -> None:
    """Have a run taken as far as it goes."""
    kwargs = {"run_id": run.run_id, "account_id": run.account_id}
    _send(f"{run.runbook}.run", RUNBOOKS, kwargs, RUN_TIME_LIMIT_S, f"run {run.run_id}")


def topics() -> None:
    """Have the topics of all governors looked at."""
    _send("repair.topics", LEDGER, {}, None, "a look at all topics", "the daily one")


def _action(task: str, action: Action) -> None:
    kwargs = {"account_id": action.account_id, "action_id": action.action_id}
    limit_s = rules.hard_limit_ms(action) / 1000
    _send(task, ACTIONS, kwargs, limit_s, f"action {action.action_id}")


def _send(
    task: str,
    queue: str,
    kwargs: Mapping[str, str],
    time_limit: float | None,
    what: str,
    until: str = "the reaper",
) -> None:
    try:
        app.send_task(
            task,
            kwargs=dict(kwargs),
            queue=queue,
            time_limit=time_limit,  # type: ignore[arg-type]  # Celery takes fractions too
            retry_policy=PUBLISH_ONCE,
        )
    except (CeleryUnreachable, BrokerUnreachable, OSError) as error:
        _LOG.warning("%s waits for %s: no broker (%s)", what, until, error)
