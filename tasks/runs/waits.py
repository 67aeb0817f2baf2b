"""Steps that wait for a moment, a condition, or the runs they started.

The wait is written once, as it begins. From then on the reaper looks: no message is on its way, no
process is held, and whatever dies meanwhile, the wait goes on. ``wait_limit_s`` bounds it.
"""

import logging
from datetime import datetime

from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RUN_ACTING, RunState
from governor.runs import Cancellation, JournalEntry, Run, Wait
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Update, Where, Write, every
from tasks.outcomes import Outcome, put_off
from tasks.receipts.commit import commit_once
from tasks.runs.definition import Runbook, Step
from tasks.runs.fenced import Fenced
from tasks.runs.journal import children, claimed

_LOG = logging.getLogger("ggen.runs")


def of(ports: Ports, step: Step, run: Run) -> Wait | None:
    """What a step waits for just now; None when it may act.

    Raises:
        ConflictError: ``wait-limit``: it has waited for as long as it may, and then it fails.
        whatever ``step.ready`` raises.
    """
    known = _known(run, step)
    if known and _is_late(ports, step, known):
        if step.when_late == "fails":
            _refuse_unless_ready(ports, step, run)
        return None
    if known and known.until and ports.clock.now() < instant(known.until):
        return known
    return step.ready(ports, run)


def _is_late(ports: Ports, step: Step, known: Wait) -> bool:
    since = known.since
    return since is not None and elapsed_ms(since, ports.clock.now()) >= step.wait_limit_s * 1000


def _refuse_unless_ready(ports: Ports, step: Step, run: Run) -> None:
    try:
        wait = step.ready(ports, run)
        why = wait.reason if wait else ""
    except OutageError as error:
        why = error.code
    if why:
        detail = f"after {step.wait_limit_s:g} s it still waits: {why}"
        raise ConflictError("wait-limit", detail)


def begin(ports: Ports, runbook: Runbook, at: Fenced, step: Step, wait: Wait) -> Outcome:
    """Write down what the step waits for, unless the journal says so already.

    Raises:
        ElsewhereError: the run was moved meanwhile.
    """
    known, begun = _known(at.run, step), claimed(ports, runbook, at.run)
    told = put_off(f"it waits: {wait.reason}")
    if known and (known.reason, known.until) == (wait.reason, wait.until):
        return told
    if known is None:
        _LOG.info("run %s: %s waits: %s", begun.run_id, step.name, wait.reason)
    since = known.since if known else timestamp(ports.clock.now())
    entry = at.entry.evolve(state="waiting", wait=wait.evolve(since=since))
    if known:
        begun = begun.evolve(deadline_at=at.run.deadline_at)  # its time stands still all the while
    writes: list[Write] = []
    if at.run.state is RunState.PENDING and not begun.has_turn:
        begun = begun.evolve(has_turn=True)
        writes.append(Create(paths.turn_path(begun.turn), {"run_id": begun.run_id}))
    alarm: Alert | None = None
    if wait.alarm and not at.entry.is_told and (stuck := runbook.stuck):
        proofs, alarm = stuck(ports, begun, step.name, wait.alarm, wait.reason)
        entry, writes = entry.evolve(is_told=True), [*writes, *proofs]
    at.save(ports, begun, entry, writes)
    if alarm:
        ports.alerts.send(alarm)
    return told


def tell_the_end(ports: Ports, run: Run, step: Step, entry: JournalEntry | None) -> None:
    """One line in the log: the wait is over."""
    if entry and entry.state == "waiting" and entry.wait and entry.wait.since:
        waited_s = elapsed_ms(entry.wait.since, ports.clock.now()) / 1000
        _LOG.info("run %s: %s waited %.1f s and goes on", run.run_id, step.name, waited_s)


def waiting_step(runbook: Runbook, run: Run) -> Step | None:
    """The step of a run that waits, if one does; a run that is being undone waits for nothing."""
    if run.state not in RUN_ACTING:
        return None
    return next((step for step in runbook.steps if _known(run, step)), None)


def is_over(ports: Ports, step: Step, run: Run) -> bool:
    """Whether a waiting run has something to do: its step may act, is late, fails, or tells."""
    try:
        wait = of(ports, step, run)
        return wait is None or bool(wait.alarm and not run.journal[step.name].is_told)
    except OutageError:
        return False  # it is looked at again; once it is late, it fails
    except Exception:  # whatever it is, the step's own task says it, and fails the run
        return True


def until(ports: Ports, moment: datetime, reason: str) -> Wait | None:
    """A wait for a moment, for ``Step.ready``; None once it has come."""
    return Wait(reason=reason, until=timestamp(moment)) if ports.clock.now() < moment else None


def for_children(ports: Ports, run: Run) -> Wait | None:
    """What a run waits for that needs every run it started to have ended."""
    still = len(children(ports, run.run_id, only_open=True, limit=2))
    if not still:
        return None
    return Wait(reason="a run it started goes on" if still == 1 else "runs it started go on")


def cancel_children(ports: Ports, run: Run, reason: str) -> None:
    """Have the runs that a run started undone, as far as they have not ended: for its undo.

    Raises:
        OutageError: ``children-open``: some go on still; to be repeated.
        ConflictError: one was moved just now; the same.
    """
    wish = Cancellation(
        operator=run.run_id, reason=reason, requested_at=timestamp(ports.clock.now())
    )
    mine = [Where("parent", "==", run.run_id), Where("state", "in", RUN_ACTING)]
    for found in every(ports.documents, "runs", *mine):
        child = Run.stored(found.data)
        if child.cancellation is None:
            wished = child.evolve(cancellation=wish, retry_at=None)
            commit_once(ports, [Update(found.path, wished.document(), found.revision)])
    if children(ports, run.run_id, only_open=True, limit=1):
        raise OutageError("children-open", "runs it started are not undone yet", 1)


def _known(run: Run, step: Step) -> Wait | None:
    entry = run.journal.get(step.name)
    return entry.wait if entry and entry.state == "waiting" else None
