"""Runbook 3, Scale Governor: a governor may act more at once, as far as its quota allows.

A minute after a limit was raised the lag is read again; where more waits than before, the limit
goes back. An operator asks for it, or the system, by the governor's load
(``scale.pressed``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from governor.errors import DeniedError, InputError
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.paths import entitlement_path, turn_path
from governor.runs import Effect, Run, Trigger, Wait
from governor.scaling.decision import decide, is_before
from governor.scaling.readings import is_within
from governor.slo import contract
from governor.tenancy import Entitlement
from governor.times import elapsed_ms, timestamp
from ledger import canonical
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Document, Update, Write
from tasks.governors import lag
from tasks.governors.boot import boot_governor
from tasks.manual import Door, Manual
from tasks.receipts import troubles
from tasks.receipts.commit import alert, explained, receipt
from tasks.runbooks.scale import limits
from tasks.runbooks.scale.changes import NAME, Applied, Decided, Scaling, fields_of
from tasks.runbooks.scale.holds import history_of, kept
from tasks.runbooks.scale.verdicts import Verified, verify, when_to_verify
from tasks.runs import intake
from tasks.runs.definition import Result, Runbook, Step

_MIN_REASON = 10
"""Characters of a reason, where one is needed."""

_HOLDS_S = 60
"""How long a decision of the system holds: later another one is made."""


def ask(ports: Ports, asked: Scaling, key: str) -> Run:
    """Begin a change of a limit; the run.

    Raises:
        InputError: no reason is given for a change without ``quota_check``.
        OutageError: it may have begun; repeating is safe.
    """
    if not asked.quota_check and len(asked.reason) < _MIN_REASON:
        raise InputError("no-reason", "--no-quota-check needs --reason, of ten characters or more")
    run = intake.new_run(
        ports,
        RUNBOOK,
        asked.model_dump(mode="json"),
        account_id=asked.account_id,
        trigger=Trigger.METRIC if asked.decided_from else Trigger.COMMAND,
        dedupe_key=key,
        turn=key,  # of its own: a minute's wait holds up nothing of the account
    )
    return intake.begin(ports, RUNBOOK, run)


def _stored(document: Document) -> Entitlement:
    return Entitlement.stored(document.data)


def _found(ports: Ports, run: Run) -> tuple[Document, Entitlement]:
    asked = Scaling.stored(run.inputs)
    document = ports.documents.get(entitlement_path(run.account_id, asked.entitlement_id))
    if document is None or _stored(document).state not in ENTITLEMENT_BOUGHT:
        raise DeniedError("not-active", "its entitlement is not in use any more")
    return document, _stored(document)


def _decide(ports: Ports, run: Run) -> Result:
    asked, (_, entitlement) = Scaling.stored(run.inputs), _found(ports, run)
    if entitlement.concurrent_actions == asked.new_concurrency:
        raise DeniedError("no-change", f"its limit is {asked.new_concurrency} already")
    if asked.decided_from and asked.decided_from.limit != entitlement.concurrent_actions:
        raise DeniedError("superseded", "its limit changed after this was decided")
    policy = limits.policy_of(ports, entitlement)
    beyond = limits.exceeded(ports, entitlement, policy, asked.new_concurrency)
    beyond = beyond or limits.beyond_capacity(asked.decided_from, asked.new_concurrency)
    if beyond and asked.quota_check:
        proof = receipt(
            ports,
            "quota_exceeded",
            run.account_id,
            run.run_id,
            attempt=run.attempt,
            status="refused",
            run_id=run.run_id,
            sku_id=entitlement.sku_id,
            entitlement_id=entitlement.entitlement_id,
            policy_version=entitlement.policy_version,
            trigger=asked.trigger,
            concurrency={
                "previous": entitlement.concurrent_actions,
                "new": asked.new_concurrency,
            },
            **asdict(beyond),
            duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
        )
        writes: list[Write] = [proof]
        if asked.decided_from:
            found, history = history_of(ports, entitlement)
            writes.append(kept(entitlement, found, history.in_vain_again(ports.clock.now())))
        if beyond.limit == "capacity":
            troubles.tell(ports, "capacity", limits.NO_CAPACITY)
        return Result(writes=writes, ends_with=proof.data["receipt_id"])
    by_itself = decide(asked.decided_from) if asked.decided_from else None
    return Result(
        Decided(
            previous=entitlement.concurrent_actions,
            sku_id=entitlement.sku_id,
            plan_type=entitlement.plan_type,
            policy_version=entitlement.policy_version,
            commanded=history_of(ports, entitlement)[1].commanded,
            lag=(by_itself and by_itself.lag) or lag.read(ports, run.account_id),
            why=by_itself.why if by_itself else None,
            warnings=[]
            if by_itself
            else limits.warnings(ports, entitlement, asked.new_concurrency),
        )
    )


def _look(_ports: Ports, run: Run) -> dict[str, Effect]:
    return {f"limit of {Scaling.stored(run.inputs).entitlement_id}": Effect.CHANGE}


def _when_to_apply(ports: Ports, run: Run) -> Wait | None:
    """Not while another run of the account may still put its entitlement back as it was."""
    if ports.documents.get(turn_path(f"account/{run.account_id}")) is None:
        return None
    return Wait(reason="another run of the account goes on")


def _apply(ports: Ports, run: Run) -> Result:
    asked, (document, entitlement) = Scaling.stored(run.inputs), _found(ports, run)
    decided, policy = Decided.of(run), limits.policy_of(ports, entitlement)
    beyond = asked.quota_check and limits.exceeded(
        ports, entitlement, policy, asked.new_concurrency
    )
    if beyond or not decided.still_holds(entitlement, decided.previous):
        raise DeniedError("superseded", "its limit, plan, policy or budget changed meanwhile")
    now = ports.clock.now()
    found, history = history_of(ports, entitlement)
    if asked.decided_from and (
        is_before(now, history.paused_until) or not is_within(now, asked.decided_from.at, _HOLDS_S)
    ):
        raise DeniedError("superseded", "it was paused, or decided more than a minute ago")
    after, cost_usd = limits.limited(entitlement, policy, asked.new_concurrency, run, ports)
    fields: dict[str, Any] = {
        **fields_of(run, entitlement, decided.previous, asked.new_concurrency, cost_usd),
        "duration_ms": elapsed_ms(run.started_at, now),
        "status": "success",
        "quota_check": "passed" if asked.quota_check else "skipped",
        "trigger": asked.trigger,
        **_asker(asked),
        "why": decided.why,
        "lag_before": decided.lag.value,
        "lag_as_of": decided.lag.as_of if decided.lag.value is not None else None,
        "warnings": decided.warnings,
    }
    of = ports, "governor_scaled", run.account_id, run.run_id
    proofs = [receipt(*of, **fields)]
    if asked.reason:
        proofs = explained(*of, asked.reason, named="reason_sha256", **fields)
    history = history.changed(now)
    if not asked.decided_from:
        by_operator = {"commanded": asked.new_concurrency, "commanded_plan": entitlement.plan_type}
        history = history.evolve(**by_operator)
    limit = Update(document.path, after.document(), document.revision)
    writes: list[Write] = [limit, kept(entitlement, found, history), *proofs]
    told = Applied(receipt_id=proofs[0].data["receipt_id"], applied_at=timestamp(now))
    return Result(told, writes)


def _asker(asked: Scaling) -> dict[str, str]:
    """Who asked for it, or the digest of what the system decided from."""
    if asked.decided_from is None:
        return {"operator": asked.operator, "operator_is": "unverified"}
    decided_from = canonical.dumps(asked.decided_from.document())
    return {"decided_from": hashlib.sha256(decided_from).hexdigest()}


def _tell(ports: Ports, run: Run) -> Result:
    boot_governor(ports, run.account_id)
    return Result()


def _finish(ports: Ports, run: Run) -> Result:
    boot_governor(ports, run.account_id)
    return Result(ends_with=Verified.of(run).receipt_id)


def _never(_ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    raise AssertionError(f"the last step of {run.run_id} ends it with a receipt that it names")


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    return explained(
        ports,
        "governor_scale_failed",
        run.account_id,
        run.run_id,
        run.error_detail or "",
        attempt=run.attempt,
        status="failed",
        run_id=run.run_id,
        failed_step=failed_step,
        error_code=run.error_code or "unknown",
        duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
    )


def _go_by_it(ports: Ports, run: Run) -> None:
    boot_governor(ports, run.account_id)


def _stuck(ports: Ports, run: Run, step: str, code: str, why: str) -> tuple[list[Create], Alert]:
    return alert(
        ports,
        "critical",
        "governor_scale_stuck",
        run.account_id,
        f"{run.run_id}/{step}",
        f"{step}: {code}: {why}. It goes on by itself: ggen runs show {run.run_id}",
        attempt=run.attempt,
    )


MANUAL = Manual(
    number=3,
    title="Scale Governor",
    purpose=(
        "A governor may act more, or less, at once, within its plan, month and budget. Where more "
        "signals wait a minute later than before, the limit goes back."
    ),
    trigger="signals wait or are refused for concurrency; `ggen scale ACCOUNT --concurrency N`",
    inputs=Scaling,
    outputs=(
        "the entitlement's limit, and `governor_scaled` with its cost, in one commit",
        "in force at the next admission; kept by Documents, whatever becomes of Memory",
        "`governor_scale_reverted` where the lag grew in a minute after the limit was raised",
    ),
    refusals=(
        (
            "beyond the plan, the month's actions or the budget",
            "`quota_exceeded` with its unit; nothing changed",
        ),
        (
            "no worker is free for more, but those left to other tenants, and no operator asked",
            "`quota_exceeded` with the limit `capacity`, and an alert; the operator adds workers",
        ),
        (
            "fewer than four fifths of the limit are in flight, and an operator asked",
            "a warning: `not-binding`; the system itself asks for nothing then",
        ),
        ("another change came between", "`governor_scale_failed` with `superseded`"),
        ("another run of the account goes on", "it waits for that run's end, ten minutes at most"),
        (
            "the lag is unknown, before or after, or read over two minutes later",
            "nothing is compared, and nothing goes back",
        ),
    ),
    slis=contract.SCALE_GOVERNOR,
    receipts=(
        "governor_scaled",
        "governor_scale_verified",
        "governor_scale_reverted",
        "quota_exceeded",
        "governor_scale_failed",
    ),
    refused_with="governor_scale_failed",
    door=Door(
        asker="Operator",
        at="Command",
        asks="account and limit",
        wrong=("no such entitlement", "exit 2"),
        well="exit 0, the receipt",
        badly="exit 3",
    ),
)
RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            f"{NAME}.decide",
            "Documents",
            does="reckon the cost, and see that plan, month and budget allow it",
            undoes="",
            act=_decide,
        ),
        Step(
            f"{NAME}.apply",
            "Documents",
            does="commit the limit together with its receipt",
            undoes="",
            ready=_when_to_apply,
            look=_look,
            act=_apply,
        ),
        Step(
            f"{NAME}.memory",
            "Memory",
            does="tell admission of the limit",
            undoes="",
            act=_tell,
        ),
        Step(
            f"{NAME}.verify",
            "Documents",
            does="compare the lag with the one before, and go back where it grew",
            undoes="",
            ready=when_to_verify,
            act=verify,
        ),
        Step(
            f"{NAME}.finish",
            "Memory",
            does="tell admission of the limit, if it went back",
            undoes="",
            act=_finish,
        ),
    ),
    succeeded=_never,
    refused=_refused,
    ended=_go_by_it,
    no_way_back=f"{NAME}.apply",
    stuck=_stuck,
)
