"""Runbook 5, Recover from Action Failure: an action is carried out, and undone where it failed."""

from typing import Any

from pydantic import BaseModel, Field

from adapters import wiring
from governor.records import AccountId
from governor.slo import contract
from tasks.action_events import ActionEvents
from tasks.actions import dispatch, execute, recover
from tasks.celery import app
from tasks.manual import Manual
from tasks.results import result_of


@app.task(name="execute_action.run")
def execute_action(account_id: str, action_id: str, **_shown: str) -> str:
    """Carry out one action, at most once (D18)."""
    return result_of(execute.execute(wiring.ports(), account_id, action_id))


@app.task(name="dispatch.bell", bind=True)
def serve_waiting(self: Any, limit_ms: int, called_in: int) -> str:
    """Carry out actions that wait, in their turns; each is shown in Flower as a task of its own."""
    events = ActionEvents.of_this_process(self.request.hostname)
    try:
        told = events.begun, events.ended
        served = dispatch.serve(wiring.ports(), limit_ms, called_in, *told)
    finally:
        events.flush()
    return f"{served} actions"


@app.task(name="recover_action.roll_back")
def roll_back_action(account_id: str, action_id: str, **_shown: str) -> str:
    """Undo an action whose own child cannot any more, or whose rollback failed before."""
    return result_of(recover.roll_back(wiring.ports(), account_id, action_id))


class ActionFailure(BaseModel):
    """What sets the runbook off; the worker finds it, no operator types it in."""

    account_id: AccountId = Field(description="whose action")
    action_id: str = Field(description="which one")
    error_code: str = Field(
        description="the handler's own, `DEADLINE_EXCEEDED`, `QUEUE_TIMEOUT`, or `WORKER_LOST`"
    )
    is_recoverable: bool = Field(description="whether the handler's rollback may undo it")


MANUAL = Manual(
    number=5,
    title="Recover from Action Failure",
    purpose=(
        "An action that fails, or does not end in its time, is receipted and undone. The undo is "
        "tried until it holds, whatever is killed meanwhile."
    ),
    trigger=(
        "a handler raises, or is stopped at its deadline (500 ms after it starts); or the reaper "
        "finds an action whose process is gone"
    ),
    inputs=ActionFailure,
    outputs=(
        "the action's state and its receipt in one commit: `action_timeout` or `action_failed`",
        "`action_rolled_back` after a rollback that returned",
        "a critical alert where nothing can undo it",
        "a governor that is stable again: its slot is free",
    ),
    refusals=(
        (
            "a rollback fails",
            "`rollback_failed` with the time of the next try, one critical alert, and a try after "
            "it, later each time, with twice the time once",
        ),
        ("the action declares that there is nothing to undo", "it ends `failed`; no rollback"),
        ("the failure says that it cannot be undone", "it ends `failed`, with a critical alert"),
        (
            "the worker is killed",
            "the reaper ends the action by what Documents say, and hands its undo to another",
        ),
        (
            "the store is away as the action ends",
            "the commit waits, whole and signed, in the spool, and lands when the store is back",
        ),
        (
            "an operator has undone it by hand",
            "`ggen actions resolve`: `action_resolved`, and no further try",
        ),
    ),
    slis=contract.RECOVER_ACTION,
    receipts=(
        "action_complete",
        "action_timeout",
        "action_failed",
        "action_rolled_back",
        "rollback_failed",
        "action_resolved",
        "alert_raised",
    ),
    sequence=(
        "sequenceDiagram",
        "participant Task as execute_action.run",
        "participant Handler",
        "participant Documents",
        "participant Alerts",
        "participant Reaper",
        "Task->>Documents: claim the action",
        "Task->>Handler: run, under a timer of 500 ms",
        "alt the handler returns in time",
        "  Task->>Documents: commit complete with action_complete",
        "else the timer fires first, or the handler raises",
        "  Task->>Documents: commit failed with action_timeout or action_failed",
        "  alt it can be undone",
        "    Task->>Handler: rollback, under its own timer",
        "    Task->>Documents: commit rolled_back with action_rolled_back",
        "  else the rollback fails",
        "    Task->>Documents: commit rollback_failed with the time of the next try",
        "    Task->>Alerts: critical alert, once",
        "    Reaper->>Handler: recover_action.roll_back, until it holds",
        "  else nothing can undo it",
        "    Task->>Alerts: critical alert",
        "  end",
        "else the worker is killed",
        "  Reaper->>Documents: end it by what is stored, within seconds",
        "  Reaper->>Handler: recover_action.roll_back",
        "end",
    ),
)
