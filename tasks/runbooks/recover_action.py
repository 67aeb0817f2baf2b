"""Runbook 5, Recover from Action Failure: an action is carried out, and undone where it failed."""

from adapters import wiring
from tasks.actions import execute, recover
from tasks.celery import app


@app.task(name="execute_action.run")
def execute_action(account_id: str, action_id: str) -> None:
    """Carry out one action, at most once (D18)."""
    execute.execute(wiring.ports(), account_id, action_id)


@app.task(name="recover_action.roll_back")
def roll_back_action(account_id: str, action_id: str) -> None:
    """Undo an action whose own child cannot any more, or whose rollback failed before."""
    recover.roll_back(wiring.ports(), account_id, action_id)
