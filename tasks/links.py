"""Each step of a runbook as a Celery task of its name, and so each undo, and the end after them.

Flower shows what became of each: SUCCESS, with ``already done`` where an earlier message did the
work; RETRY where it was put off, with the reason; FAILURE with the error's name and code. Celery
requeues none of them: the reaper brings back what was put off.
"""

from typing import Any

from adapters import wiring
from governor.errors import OutageError
from tasks.celery import app
from tasks.outcomes import Ending, put_off
from tasks.results import result_of
from tasks.runs.definition import Runbooks
from tasks.runs.journal import load, send
from tasks.runs.step import run_link


def register(runbooks: Runbooks) -> None:
    """Make the tasks of these runbooks known to Celery; runbooks may share steps."""
    tasks: dict[str, str] = {}
    for runbook in runbooks.values():
        for step in runbook.steps:
            tasks[step.name] = step.does
            if step.undoes:
                tasks[step.undo_name] = step.undoes
        tasks[runbook.undone_name] = "commit the end of a run that was undone"
    for name, does in tasks.items():
        _register(name, does, runbooks)


def register_former(name: str, runbooks: Runbooks) -> None:
    """Carry out the messages of release 0.1.0, whose runs were one task."""

    def carry_on(run_id: str, account_id: str) -> None:
        send(runbooks, load(wiring.ports(), run_id)[1])

    app.task(name=name)(carry_on)


def _register(name: str, does: str, runbooks: Runbooks) -> None:
    def carry_out(self: Any, run_id: str, account_id: str) -> str:  # the account: Flower's search
        try:
            told = run_link(wiring.ports(), runbooks, name, run_id)
        except OutageError as error:
            told = put_off(error.code)
        if told.ending is Ending.RUN_ENDED:
            self.request.chain = None
        return result_of(told)

    carry_out.__doc__ = does
    app.task(name=name, bind=True)(carry_out)
