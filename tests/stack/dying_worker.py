"""The runbooks worker, for tests: its children die at the write that an account's name tells.

``dies-succeeds-7`` dies before the seventh write of its run, once; ``dies-undone-7`` does so in a
run that fails at its end and is undone.
"""

from pathlib import Path
from typing import Any

from celery.signals import task_prerun

from config.settings import load
from governor.errors import ConflictError
from ports import Ports
from tasks.celery import app
from tasks.runbooks import entitlement_lifecycle
from tasks.runs import step
from tasks.runs.definition import Runbook
from tests.support.faults import Writes, die, watched
from tests.support.runs import failing

__all__ = ["app"]
_UNDONE = failing("entitlement_lifecycle.finish", ConflictError("x", "it fails at its end"))
_account = ""


@task_prerun.connect
def _remember(kwargs: dict[str, Any], **_: object) -> None:
    global _account  # noqa: PLW0603  # one task at a time in a child
    _account = kwargs.get("account_id", "")


def _marker() -> Path:
    return load().state_dir / f"{_account}.died"


def _die_once() -> None:
    _marker().touch()
    die()


def _carry_on(ports: Ports, runbook: Runbook, run_id: str) -> None:
    _dies, _, rest = _account.partition("dies-")
    name, _, at = rest.partition("-")
    if name == "undone":
        runbook = _UNDONE
    if at and not _marker().exists():
        ports = watched(ports, Writes(int(at), "lost", _die_once))
    step.carry_on(ports, runbook, run_id)


entitlement_lifecycle.carry_on = _carry_on
