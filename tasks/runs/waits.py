"""Steps that wait for a moment, a condition, or the runs they started.

The wait is written once, as it begins. From then on the reaper looks: no message is on its way, no
process is held, and whatever dies meanwhile, the wait goes on. ``wait_limit_s`` bounds it.
"""

import logging
from datetime import datetime

from governor import paths
from governor.errors import ConflictError
from governor.fsm import RunState
from governor.runs import Cancellation, JournalEntry, Run, Wait
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.documents import Create, Update, Write
from tasks.outcomes import Outcome, put_off
from tasks.receipts.commit import commit_once
from tasks.runs.definition import Runbook, Step
from tasks.runs.fenced import Fenced
from tasks.runs.journal import children, load

_LOG = logging.getLogger("ggen.runs")
_ALL = 1000


def of(ports: Ports, step: Step, run: Run) -> Wait | None:
    """What a step waits for just now; None when it may act.

    Raises:
        ConflictError: ``wait-limit``: it has waited for as long as it may, and then it fails.
        whatever ``step.ready`` raises.
    """
    known = _known(run, step)
    if known and known.until and ports.clock.now() < instant(known.until):
        return known
    wait = step.ready(ports, run)
    if wait is None or known is None or known.since is None:
        return wait
    if elapsed_ms(known.since, ports.clock.now()) < step.wait_limit_s * 1000:
        return wait
    if step.when_late == "acts":
        return None
    detail = f"after {step.wait_limit_s:g} s it still waits: {wait.reason}"
    raise ConflictError("wait-limit", detail)


def begin(ports: Ports, at: Fenced, begun: Run, step: Step, wait: Wait) -> Outcome:
    """Write down what the step waits for, unless the journal says so already.

    Raises:
        ElsewhereError: the run was moved meanwhile.
    """
    known = _known(at.run, step)
    told = put_off(f"it waits: {wait.reason}")
    if known and (known.reason, known.until) == (wait.reason, wait.until):
        return told
    if known is None:
        _LOG.info("run %s: %s waits: %s", begun.run_id, step.name, wait.reason)
    since = known.since if known else timestamp(ports.clock.now())
    entry = at.entry.evolve(state="waiting", wait=wait.evolve(since=since))
    writes: list[Write] = []
    if at.run.state is RunState.PENDING and not begun.has_turn:
        begun = begun.evolve(has_turn=True)
        writes.append(Create(paths.turn_path(begun.turn), {"run_id": begun.run_id}))
    at.save(ports, begun, entry, writes)
    return told


def tell_the_end(ports: Ports, run: Run, step: Step, entry: JournalEntry | None) -> None:
    """One line in the log: the wait is over."""
    if entry and entry.state == "waiting" and entry.wait and entry.wait.since:
        waited_s = elapsed_ms(entry.wait.since, ports.clock.now()) / 1000
        _LOG.info("run %s: %s waited %.1f s and goes on", run.run_id, step.name, waited_s)


def waiting_step(runbook: Runbook, run: Run) -> Step | None:
    """The step of a run that waits, if one does."""
    return next((step for step in runbook.steps if _known(run, step)), None)


def is_over(ports: Ports, step: Step, run: Run) -> bool:
    """Whether a waiting run has something to do: its step may act, is late, or it was cancelled."""
    if run.cancellation:
        return True
    try:
        return of(ports, step, run) is None
    except ConflictError:
        return True


def until(ports: Ports, moment: datetime, reason: str) -> Wait | None:
    """A wait for a moment, for ``Step.ready``; None once it has come."""
    return Wait(reason=reason, until=timestamp(moment)) if ports.clock.now() < moment else None


def for_children(ports: Ports, run: Run) -> Wait | None:
    """What a run waits for that needs every run it started to have ended."""
    still = len(children(ports, run.run_id, only_open=True, limit=_ALL))
    if not still:
        return None
    return Wait(reason="a run it started goes on" if still == 1 else "runs it started go on")


def cancel_children(ports: Ports, run: Run, reason: str) -> None:
    """Have the runs that a run started undone, as far as they have not ended: for its undo.

    Raises:
        ConflictError: one was moved just now; to be repeated.
    """
    wish = Cancellation(
        operator=run.run_id, reason=reason, requested_at=timestamp(ports.clock.now())
    )
    for child in children(ports, run.run_id, only_open=True, limit=_ALL):
        found, current = load(ports, child.run_id)
        if current.cancellation is None:
            wished = current.evolve(cancellation=wish, retry_at=None)
            commit_once(ports, [Update(found.path, wished.document(), found.revision)])


def _known(run: Run, step: Step) -> Wait | None:
    entry = run.journal.get(step.name)
    return entry.wait if entry and entry.state == "waiting" else None
