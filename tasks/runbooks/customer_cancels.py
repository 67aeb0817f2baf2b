"""Runbook 7, Customer Cancels: an entitlement is drained, proved, archived and ended.

Its steps are in ``cancel``. Once the entitlement drains there is no way back: whatever fails
is tried again, the operator hears of what lasts, and the run goes on by itself.
"""

import math
from collections.abc import Sequence

from governor.fsm import RunState
from governor.runs import Run
from governor.slo import contract
from governor.tenancy import MarketplaceEvent
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Write
from tasks.governors.boot import boot_governor
from tasks.manual import Door, Manual
from tasks.receipts.commit import alert, explained
from tasks.runbooks.cancel import closing, draining, leftovers
from tasks.runbooks.events import event_of, of_run
from tasks.runs.definition import Chunk, Runbook, Step

NAME = "customer_cancels"
DRAIN_S = 30
"""How long actions in flight are waited for (spec, Runbook 7)."""


def _leftovers(ports: Ports, run: Run, cursor: str) -> Chunk:
    if not draining.Draining.of(run).is_last:
        return Chunk(None, 0)
    draining.refuse_unless_ours(ports, run)
    return leftovers.take_part(ports, run, cursor, patience_s=leftovers.RESTS_S)


def _latecomers(ports: Ports, run: Run, cursor: str) -> Chunk:
    if not draining.Draining.of(run).is_last:
        return Chunk(None, 0)
    draining.refuse_unless_ours(ports, run)
    return leftovers.take_part(ports, run, cursor, patience_s=0)


def _never(_ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    raise AssertionError(f"run {run.run_id} ends with the receipt of an earlier step")


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    return _failed(ports, run, failed_step, run.error_code or "unknown", run.error_detail or "")


def _stuck(ports: Ports, run: Run, step: str, code: str, why: str) -> tuple[list[Create], Alert]:
    proofs = _failed(ports, run, step, code, why)
    raised, told = alert(
        ports,
        "critical",
        "decommission_failed",
        run.account_id,
        f"{run.run_id}/{step}",
        f"{step}: {code}: {why}. It goes on by itself: ggen runs show {run.run_id}",
        attempt=run.attempt,
        cause_receipt=proofs[0],
    )
    return [*proofs, *raised], told


def _failed(ports: Ports, run: Run, step: str, code: str, why: str) -> list[Create]:
    event = event_of(run)
    return explained(
        ports,
        "decommission_failed",
        run.account_id,
        f"{run.run_id}/{step}",
        why,
        attempt=run.attempt,
        status="failed",
        sku_id=event.sku_id,
        entitlement_id=event.entitlement_id,
        failed_step=step,
        error_code=code,
        **of_run(ports, run),
    )


def _forget(ports: Ports, run: Run) -> None:
    if run.state is RunState.COMPLETE:
        boot_governor(ports, run.account_id)


MANUAL = Manual(
    number=7,
    title="Customer Cancels",
    purpose=(
        "A cancelled entitlement is drained, its ledger archived and verified, and with the "
        "account's last entitlement the governor is shut down. Documents and receipts stay."
    ),
    trigger="`POST /v1/webhooks/marketplace`, signed, with `entitlement.cancelled`",
    inputs=MarketplaceEvent,
    outputs=(
        "its signals are refused at once: 503 `draining`, and 404 once the governor is gone",
        "every action in flight has ended, by itself or explicitly after 30 s",
        "the account's whole ledger in the archive bucket, created once, read back, verified",
        "with the last entitlement: topic, subscription and signal key removed",
        "`decommission_complete`, and beside the archive the same with its proof "
        "(`….complete.json`)",
    ),
    refusals=(
        ("an event older than the newest one in force", "acknowledged with `event_ignored` (200)"),
        (
            "an entitlement that is not known, or has ended",
            "acknowledged with `event_ignored` (200); an older event of it changes nothing",
        ),
        ("the entitlement is of another SKU", "`decommission_failed`, permanently (422)"),
        (
            "a store is down before the entitlement drains, until the run's deadline",
            "nothing changed, `decommission_failed`, to be delivered again (503)",
        ),
        (
            "a rollback keeps failing",
            "`decommission_failed` with `ROLLBACK_PENDING`, a critical alert; nothing is archived "
            "before it is undone or resolved, and then the run goes on",
        ),
        (
            "a store, or the archive bucket, is down later",
            "the step is tried again, at most 30 s apart; after 5 minutes `decommission_failed` "
            "and a critical alert; the run goes on by itself",
        ),
        (
            "the ledger fails verification",
            "nothing is archived or deleted; `decommission_failed` and a critical alert at once",
        ),
    ),
    slis=contract.CUSTOMER_CANCELS,
    receipts=(
        "decommission_start",
        "decommission_complete",
        "decommission_failed",
        "signals_refused",
        "event_ignored",
        "alert_raised",
    ),
    door=Door(
        asker="Marketplace",
        at="Ingress",
        asks="signed cancellation",
        wrong=("signature invalid", "400"),
        well="200 with the receipt (202 after 5 s)",
        badly="422: permanent, 503: deliver again",
    ),
    refused_with="decommission_failed",
    is_one_way=True,
)

RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            f"{NAME}.event",
            "Documents",
            does="see that the event is news, and that there is something to cancel",
            undoes="",
            act=draining.decide,
            reads_only=True,
        ),
        Step(
            f"{NAME}.drain",
            "Documents",
            does="commit the entitlement, and with the last one its governor, as draining",
            undoes="",
            look=draining.look_drain,
            act=draining.act_drain,
        ),
        Step(
            f"{NAME}.start",
            "Memory",
            does="admit no more of its signals, commit decommission_start",
            undoes="",
            look=draining.look_governor,
            act=draining.act_start,
        ),
        Step(
            f"{NAME}.actions",
            "Actions",
            does="wait for the actions in flight, at most 30 s, and end the rest explicitly",
            undoes="",
            ready=draining.ready_actions,
            wait_limit_s=DRAIN_S,
            when_late="acts",
            look=draining.look_actions,
            act=draining.act_actions,
        ),
        Step(
            f"{NAME}.rollbacks",
            "Actions",
            does="wait for every rollback, and count how what was in flight has ended",
            undoes="",
            ready=draining.ready_rollbacks,
            wait_limit_s=math.inf,
            act=draining.act_rollbacks,
        ),
        Step(
            f"{NAME}.signals",
            "Signals",
            does="with the last entitlement: stop pushes, refuse the messages left, with a receipt",
            undoes="",
            chunk=_leftovers,
        ),
        Step(
            f"{NAME}.seal",
            "Ledger",
            does="seal every receipt",
            undoes="",
            look=closing.look_seal,
            act=closing.act_seal,
            time_limit_s=60,
        ),
        Step(
            f"{NAME}.archive",
            "Archives",
            does="create the ledger's archive, read it back, verify it",
            undoes="",
            look=closing.look_archive,
            act=closing.act_archive,
            time_limit_s=600,
        ),
        Step(
            f"{NAME}.latecomers",
            "Signals",
            does="refuse the messages published meanwhile, with a receipt",
            undoes="",
            chunk=_latecomers,
        ),
        Step(
            f"{NAME}.resources",
            "Signals",
            does="with the last entitlement: delete subscription and topic, withdraw the key",
            undoes="",
            look=closing.look_resources,
            act=closing.act_resources,
        ),
        Step(
            f"{NAME}.complete",
            "Documents",
            does="commit the states as decommissioned, together with decommission_complete",
            undoes="",
            look=closing.look_complete,
            act=closing.act_complete,
        ),
        Step(
            f"{NAME}.proof",
            "Archives",
            does="put the sealed receipt with its proof beside the archive",
            undoes="",
            look=closing.look_proof,
            act=closing.act_proof,
            time_limit_s=60,
        ),
    ),
    succeeded=_never,
    refused=_refused,
    ended=_forget,
    no_way_back=f"{NAME}.drain",
    stuck=_stuck,
)
