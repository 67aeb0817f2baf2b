"""A minute after a limit was raised: whether more signals wait than before, and the way back."""

from datetime import timedelta

from governor import scaling
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.paths import entitlement_path
from governor.runs import Run, StepResult, Wait
from governor.tenancy import Entitlement
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.documents import Update, Write
from tasks.governors import lag
from tasks.receipts.commit import receipt
from tasks.runbooks.scale import limits
from tasks.runbooks.scale.changes import NAME, Applied, Decided, Scaling, fields_of
from tasks.runs.definition import Result

_FRESH_S = 10
"""How long before the change the lag may have been read that it is compared with."""


class Verified(StepResult):
    """The receipt that the run ends with, and whether the change helped."""

    step = f"{NAME}.verify"

    receipt_id: str
    verdict: scaling.Verdict


def _is_verified(run: Run) -> bool:
    """Whether a minute later shows anything: the limit was raised, and the lag just known."""
    decided, applied_at = Decided.of(run), instant(Applied.of(run).applied_at)
    raised = Scaling.stored(run.inputs).new_concurrency > decided.previous
    is_fresh = applied_at - instant(decided.lag.as_of) < timedelta(seconds=_FRESH_S)
    return raised and decided.lag.value is not None and is_fresh


def when_to_verify(ports: Ports, run: Run) -> Wait | None:
    """Wait for the minute to be over, where it will show anything."""
    due = instant(Applied.of(run).applied_at) + timedelta(seconds=scaling.VERDICT_AFTER_S)
    if not _is_verified(run) or ports.clock.now() >= due:
        return None
    return Wait(reason="a minute, to see whether fewer signals wait", until=timestamp(due))


def verify(ports: Ports, run: Run) -> Result:
    """Go back where the lag grew; what was seen much later says nothing of this change."""
    applied, decided, asked = Applied.of(run), Decided.of(run), Scaling.stored(run.inputs)

    def kept(verdict: scaling.Verdict) -> Result:
        return Result(Verified(receipt_id=applied.receipt_id, verdict=verdict))

    since_s = elapsed_ms(applied.applied_at, ports.clock.now()) / 1000
    if not _is_verified(run) or since_s > 2 * scaling.VERDICT_AFTER_S:
        return kept("inconclusive")
    seen = lag.read(ports, run.account_id)
    path = entitlement_path(run.account_id, asked.entitlement_id)
    document = ports.documents.get(path)
    verdict = scaling.verdict(decided.lag.value, seen.value)
    if verdict != "worse" or document is None:
        return kept(verdict)
    entitlement = Entitlement.stored(document.data)
    is_mine = entitlement.limited_by == run.run_id and entitlement.state in ENTITLEMENT_BOUGHT
    if not is_mine or not decided.still_holds(entitlement, asked.new_concurrency):
        return kept("superseded")  # another run or an operator has changed it since
    policy = limits.policy_of(ports, entitlement)
    after, cost_usd = limits.limited(entitlement, policy, decided.previous, run, ports)
    proof = receipt(
        ports,
        "governor_scale_reverted",
        run.account_id,
        run.run_id,
        status="reverted",
        duration_ms=elapsed_ms(applied.applied_at, ports.clock.now()),
        reverts_receipt_id=applied.receipt_id,
        lag_before=decided.lag.value,
        lag_after=seen.value,
        lag_as_of=seen.as_of,
        **fields_of(run, entitlement, asked.new_concurrency, decided.previous, cost_usd),
    )
    writes: list[Write] = [Update(document.path, after.document(), document.revision), proof]
    return Result(Verified(receipt_id=proof.data["receipt_id"], verdict=verdict), writes)
