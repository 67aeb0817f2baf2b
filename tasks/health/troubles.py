"""Troubles that no work comes upon, looked for each half minute.

Policies in force that cannot be used, rollbacks that keep failing, parked runs, actions that wait
for a worker, clocks that differ, no address for alerts.
"""

from governor.actions import Action
from governor.fsm import ActionState, RunState
from governor.times import elapsed_ms
from ledger.verify import MAX_AHEAD
from ports import Ports
from ports.documents import Query, Where
from tasks.governors import policies
from tasks.poison import ASIDE
from tasks.receipts.troubles import LOOK_EVERY_S, policy_unusable, tell
from tasks.sweep import isolating_errors

_AT_MOST = 100
_WAITING_MS = 5_000
"""How long an accepted action may wait for a worker before its operator should know."""


def look(ports: Ports) -> None:
    """Find the troubles that no work comes upon."""
    if ports.watches.claim_tick("troubles", 0.9 * LOOK_EVERY_S):
        look_for_all(ports)


def poison(ports: Ports, queue: str, digest: str) -> None:
    """Something on a queue was no message: a worker has set it aside."""
    tell(
        ports,
        f"poison-message/{queue}",
        f"queue {queue} held what is no message "
        f"({digest}); it lies in the list {ASIDE} of the broker's database. Find its sender",
    )


def look_for_all(ports: Ports) -> None:
    """Note the present troubles; past ones expire by themselves, those of a policy at once."""
    for sku_id, plan_type, error in policies.unusable(ports):
        if error:
            policy_unusable(ports, error, sku_id, plan_type)
        else:
            ports.troubles.end_trouble(f"policy-unusable/{sku_id}/{plan_type}")
    _count(
        ports,
        "actions",
        ActionState.ROLLBACK_FAILED,
        "rollbacks-failing",
        "rollbacks that keep failing. See: ggen actions list --state rollback_failed; undo one "
        "by hand and say so with: ggen actions resolve",
    )
    _count(
        ports,
        "runs",
        RunState.PARKED,
        "runs-parked",
        "runs whose undo keeps failing. See: ggen runs list --open",
    )
    compare_clocks(ports)
    _look_for_waiting(ports)
    if not ports.alerts.addresses():
        tell(
            ports,
            "no-alert-address",
            "alerts are in the log alone: put an address into "
            "secrets/alert.urls, and try it with: ggen alerts test",
            alerts=False,
        )
    else:
        ports.troubles.end_trouble("no-alert-address")


def compare_clocks(ports: Ports) -> None:
    """Notice a clock that was set: by itself, or unlike Memory's."""
    set_to, now = ports.clock.machine(), ports.clock.now()
    host = ports.processes.claim(now).host
    off = {
        "the time its programs go by": set_to - now,
        "the clock of Memory's server": set_to - ports.watches.time(),
    }
    against, by = max(off.items(), key=lambda pair: abs(pair[1]))
    name = f"clock-off/{host}"
    if abs(by) <= MAX_AHEAD:
        ports.troubles.end_trouble(name)
        return
    tell(
        ports,
        name,
        f"the clock of this machine differs by {by.total_seconds():+.0f} s from "
        f"{against}. Its programs go on by the time before it was set, or by Memory's. Set it "
        "right (NTP); where it is right, restart them all: ggen down, then ggen up",
    )


def _look_for_waiting(ports: Ports) -> None:
    """Notice that accepted actions wait for a worker: others have all of them."""
    where = Where("state", "==", ActionState.PENDING)
    found = ports.documents.scan(Query("actions", group=True, where=[where], limit=_AT_MOST))
    now = ports.clock.now()
    ages_ms: list[int] = []
    for document in found:
        with isolating_errors(document.path):
            ages_ms.append(elapsed_ms(Action.stored(document.data).accepted_at, now))
    late_ms = [age_ms for age_ms in ages_ms if age_ms > _WAITING_MS]
    if not late_ms:
        ports.troubles.end_trouble("actions-waiting")
        return
    tell(
        ports,
        "actions-waiting",
        f"{len(late_ms)} accepted actions wait for a worker, up to "
        f"{max(late_ms) / 1000:.0f} s; past their queue_timeout they fail. Run more workers "
        "(GGEN_ACTIONS_CONCURRENCY), or see who has them: ggen actions list --state running",
    )


def _count(ports: Ports, collection: str, state: str, name: str, words: str) -> None:
    where = Where("state", "==", state)
    found = ports.documents.scan(
        Query(collection, group=collection == "actions", where=[where], limit=_AT_MOST)
    )
    if not found:
        ports.troubles.end_trouble(name)
        return
    number = f"at least {_AT_MOST}" if len(found) == _AT_MOST else str(len(found))
    tell(ports, name, f"{number} {words}", alerts=False)  # each raised its own
