"""What beat has done again and again: one task for each entry of ``beat_schedule.py``.

A worker claims each tick that it carries out, so a second beat does no harm. The work itself is a
function of ports, in its room.
"""

from adapters import wiring
from governor.errors import OutageError
from governor.health import ALIVE_FOR_S
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from tasks.actions import dead_letters, dispatch
from tasks.actions import reap as action_reaper
from tasks.archives import segments
from tasks.celery import LEDGER, app
from tasks.governors import broadcast, topics
from tasks.health import alerts, troubles
from tasks.health.check import is_in_doubt
from tasks.ledgers import known, patrol, seal, trace
from tasks.ledgers.sign import raise_alarm
from tasks.ledgers.stored_log import BrokenLogError
from tasks.receipts import refusals
from tasks.retention import forget as forgetting
from tasks.runbooks import RUNBOOKS, tenant_purge, upgrade_policy
from tasks.runbooks.scale import pressed
from tasks.runbooks.upgrade import bake
from tasks.runs import reap as run_reaper
from tasks.sweep import alone

_SCAN_EVERY_S = 60
_SEGMENT_S = 600
_ALONE_S = 6.0
"""How long a sweep is alone: longer than it begins new looks, and than a call that hangs."""


@app.task(name="canary.sing", send_events=False)
def prove_consumption(component: str, by_beat: bool = False) -> None:
    """Note that this queue's worker worked just now, and perhaps that beat had it do so."""
    ports = wiring.ports()
    ports.watches.beat_alive(component, ALIVE_FOR_S)
    if by_beat:
        ports.watches.beat_alive("beat", 2 * ports.times.health_interval_s)


@app.task(name="reap.sweep", send_events=False)
def reap_what_is_due() -> None:
    """End what its own process cannot end any more; each minute, look at everything.

    It reads, fences and enqueues; handlers and undos are never run here. One sweep at a time: one
    that hangs keeps the next away for a while, and so one process free for health checks.
    """
    ports = wiring.ports()
    if not ports.watches.claim_tick("reap", 0.8) or is_in_doubt(ports):
        return
    with alone(ports, "reaping", _ALONE_S) as is_alone:
        if not is_alone:
            return
        look(ports)
        if ports.watches.claim_tick("reap-all", _SCAN_EVERY_S):
            ports.slots.note_orphans(action_reaper.look_at_all(ports))


def look(ports: Ports) -> None:
    """End actions past their time, take up dropped actions and runs."""
    dispatch.call_for_unserved(ports)
    action_reaper.look_at_due(ports)
    run_reaper.look(ports, RUNBOOKS)


@app.task(name="seal.sweep", send_events=False)
def seal_what_grew() -> None:
    """Seal the ledgers that grew; where there are more, go on behind whatever else waits."""
    if seal.sweep(wiring.ports()):
        app.send_task("seal.sweep", queue=LEDGER)


@app.task(name="traces.export", send_events=False)
def export_traces() -> None:
    """Export the traces of what has ended; a collector that is away is tried again."""
    ports = wiring.ports()
    with alone(ports, "tracing", _ALONE_S * 10) as is_alone:
        if is_alone:
            trace.export_noted(ports)


@app.task(name="tally.receipt", send_events=False)
def receipt_refusals() -> None:
    """Receipt what was refused since the last time."""
    refusals.tally(wiring.ports())


@app.task(name="deliver_alerts.deliver", send_events=False)
def deliver() -> None:
    """Deliver the alerts that are due."""
    alerts.deliver(wiring.ports())


@app.task(name="revive.dead_letters", send_events=False)
def republish_dead_letters() -> None:
    """Publish some dead letters again, once a minute."""
    dead_letters.dead_letters(wiring.ports())


@app.task(name="repair.topics", send_events=False)
def repair_topics(after: str = "") -> None:
    """Have the topics of all live governors READY, from the tenant after this path on."""
    if reached := topics.repair(wiring.ports(), after):
        app.send_task("repair.topics", kwargs={"after": reached}, queue=LEDGER)


@app.task(name="retention.forget", send_events=False)
def forget(after: str | None = None) -> None:
    """Once a day, take the content from old documents, from the tenant after this path on."""
    ports = wiring.ports()
    if is_in_doubt(ports) or (after is None and not forgetting.is_due(ports)):
        return
    if reached := forgetting.forget_some(ports, after or ""):
        app.send_task("retention.forget", kwargs={"after": reached}, queue=LEDGER)


@app.task(name="upgrade_policy.announce", send_events=False)
def announce_versions() -> None:
    """Tell every process which versions Documents have in force; not while these are in doubt."""
    ports = wiring.ports()
    if not is_in_doubt(ports):
        broadcast.tell_all(ports)


@app.task(name="upgrade_policy.watch", send_events=False)
def watch_versions() -> None:
    """Judge the versions of policies that are on trial."""
    bake.look(wiring.ports())


@app.task(name="scale_governor.look", send_events=False)
def look_at_limits() -> None:
    """Decide the limits of governors under pressure; one process at a time."""
    ports = wiring.ports()
    if is_in_doubt(ports):
        return
    with alone(ports, "scaling", _ALONE_S) as is_alone:
        if is_alone:
            pressed.look(ports)


@app.task(name="troubles.look", send_events=False)
def look_for_troubles() -> None:
    """Find the troubles that no work comes upon."""
    troubles.look(wiring.ports())


@app.task(name="troubles.poison", send_events=False)
def tell_of_poison(queue: str, digest: str) -> None:
    """Something on a queue was no message: a worker has set it aside."""
    troubles.poison(wiring.ports(), queue, digest)


@app.task(name="audit.watch", send_events=False)
def verify_ledgers() -> None:
    """Begin the work of an hour: a pass over all ledgers, and purges that had to wait."""
    if scope := patrol.is_due(wiring.ports()):
        _audit(scope, f"tenants/{SYSTEM_ACCOUNT}", 0)
        tenant_purge.begin_due(wiring.ports())
        upgrade_policy.move_laggards(wiring.ports())


@app.task(name="audit.slice", send_events=False)
def audit_slice(scope: str, path: str, number: int, after: str | None = None) -> None:
    """Judge a slice of the ledger at ``path``; then go on.

    It is some seals from past seal ``number``, or, with ``after``, some actions and runs from past
    the one there. Only a pass over everything looks at these.
    """
    ports = wiring.ports()
    account_id = known.ledger_at(ports, path)
    reached, looked = None, None
    try:
        if after is None:
            reached = patrol.judge(ports, account_id, scope, number)
            _cut_if_due(ports, account_id, is_judged=reached is None)
        else:
            looked = patrol.judge_states(ports, account_id, after)
    except OutageError:
        raise
    except Exception as error:  # whatever is wrong with one ledger, the others are judged
        raise_alarm(ports, account_id, error)
    if reached is not None:
        _audit(scope, path, reached)
    elif looked or (after is None and scope == "everything"):
        _audit(scope, path, 0, looked or "")
    elif upcoming := known.next_ledger(ports, path):
        _audit(scope, upcoming, 0)
    elif scope == "everything":
        patrol.note_everything_judged(ports)


@app.task(name="audit.cut_segment", send_events=False, time_limit=_SEGMENT_S)
def cut_segment(account_id: str) -> None:
    """Archive the next part of a ledger that has grown large; then go on with it."""
    ports = wiring.ports()
    with alone(ports, f"segment/{account_id}", _SEGMENT_S) as is_alone:
        if not is_alone:
            return
        try:
            segment = segments.cut_next(ports, account_id)
        except BrokenLogError as error:
            raise_alarm(ports, account_id, error)
            return
    _cut_if_due(ports, account_id, is_judged=segment is not None)


def _cut_if_due(ports: Ports, account_id: str, *, is_judged: bool) -> None:
    if is_judged and segments.is_due(ports, account_id):
        app.send_task("audit.cut_segment", (account_id,), queue=LEDGER)


def _audit(scope: str, path: str, number: int, after: str | None = None) -> None:
    app.send_task("audit.slice", (scope, path, number, after), queue=LEDGER)
