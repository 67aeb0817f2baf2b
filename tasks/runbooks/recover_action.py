"""Runbook 5, Recover from Action Failure: an action is carried out, and undone where it failed."""

from adapters import wiring
from tasks.actions import execute, recover
from tasks.celery import app
from tasks.results import result_of


@app.task(name="execute_action.run")
def execute_action(account_id: str, action_id: str, **_shown: str) -> str:
    """Carry out one action, at most once (D18)."""
    return result_of(execute.execute(wiring.ports(), account_id, action_id))


@app.task(name="recover_action.roll_back")
def roll_back_action(account_id: str, action_id: str, **_shown: str) -> str:
    """Undo an action whose own child cannot any more, or whose rollback failed before."""
    return result_of(recover.roll_back(wiring.ports(), account_id, action_id))
