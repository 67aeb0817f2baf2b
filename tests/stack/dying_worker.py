"""The runbooks worker, for tests: its children die at the write that an account's name tells.

``dies-succeeds-7`` dies before the seventh write of its run, once; ``dies-undone-7`` does so in a
run that fails at its end and is undone, ``dies-cancels-7`` in its cancellation.
"""

from pathlib import Path
from typing import Any

from celery.signals import task_prerun

from config.settings import load
from governor.errors import ConflictError
from ports import Ports
from tasks import links
from tasks.celery import app
from tasks.outcomes import Outcome
from tasks.runs.definition import Runbooks
from tasks.runs.step import run_link
from tests.support.cancel import observed
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


class _CountedWrites(Writes):
    """Counts on where the process before it stopped: each link of a chain has its own."""

    def __init__(self, at: int) -> None:
        super().__init__(at, "lost", _die_once)
        self._file = load().state_dir / f"{_account}.writes"
        self.count = int(self._file.read_text()) if self._file.exists() else 0

    def write(self, carry_out: Any) -> Any:
        self._file.write_text(str(self.count + 1))
        return super().write(carry_out)


def _run_link(ports: Ports, runbooks: Runbooks, task: str, run_id: str) -> Outcome:
    _dies, _, rest = _account.partition("dies-")
    name, _, at = rest.partition("-")
    if name == "undone":
        runbooks = {**runbooks, _UNDONE.name: _UNDONE}
    is_meant = (name == "cancels") == task.startswith("customer_cancels.")
    if at and is_meant and not _marker().exists():
        watch = observed if name == "cancels" else watched
        ports = watch(ports, _CountedWrites(int(at)))
    return run_link(ports, runbooks, task, run_id)


links.run_link = _run_link
