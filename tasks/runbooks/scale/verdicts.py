"""A minute after a limit was raised: whether more signals wait than before, and the way back."""

from datetime import timedelta

from governor.fsm import ENTITLEMENT_BOUGHT
from governor.paths import entitlement_path
from governor.runs import Run, StepResult, Wait
from governor.scaling import samples
from governor.scaling.history import VERDICT_AFTER_S, History, Verdict, arrivals_rose, verdict
from governor.scaling.readings import Reading
from governor.tenancy import Entitlement
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Write
from tasks.governors import lag
from tasks.receipts.commit import receipt
from tasks.runbooks.scale import limits
from tasks.runbooks.scale.changes import NAME, Applied, Decided, Scaling, fields_of
from tasks.runbooks.scale.holds import history_of, kept
from tasks.runbooks.scale.sampled import samples_of
from tasks.runs.definition import Result

_FRESH_S = 10
"""How long before the change the lag may have been read that it is compared with."""


class Verified(StepResult):
    """The receipt that the run ends with, and whether the change helped."""

    step = f"{NAME}.verify"

    receipt_id: str
    verdict: Verdict


def _is_verified(run: Run) -> bool:
    """Whether a minute later shows anything: the limit was raised, and the lag just known."""
    decided, applied_at = Decided.of(run), instant(Applied.of(run).applied_at)
    is_fresh = applied_at - instant(decided.lag.as_of) < timedelta(seconds=_FRESH_S)
    return _is_raised(run) and decided.lag.value is not None and is_fresh


def when_to_verify(ports: Ports, run: Run) -> Wait | None:
    """Wait for the minute to be over, where it will show anything."""
    due = instant(Applied.of(run).applied_at) + timedelta(seconds=VERDICT_AFTER_S)
    if not _is_verified(run) or ports.clock.now() >= due:
        return None
    return Wait(reason="a minute, to see whether fewer signals wait", until=timestamp(due))


def verify(ports: Ports, run: Run) -> Result:
    """Go back where the lag grew; what was seen much later says nothing of this change."""
    decided, asked = Decided.of(run), Scaling.stored(run.inputs)
    document = ports.documents.get(entitlement_path(run.account_id, asked.entitlement_id))
    since_s = elapsed_ms(Applied.of(run).applied_at, ports.clock.now()) / 1000
    if not _is_raised(run):
        return Result(Verified(receipt_id=Applied.of(run).receipt_id, verdict="inconclusive"))
    if document is None:
        return _kept(ports, run, None, "inconclusive")
    entitlement = Entitlement.stored(document.data)
    is_mine = entitlement.limited_by == run.run_id and entitlement.state in ENTITLEMENT_BOUGHT
    if not is_mine or not decided.still_holds(entitlement, asked.new_concurrency):
        return _kept(ports, run, None, "superseded")  # whatever is seen is of another change
    if not _is_verified(run) or since_s > 2 * VERDICT_AFTER_S:
        return _kept(ports, run, entitlement, "inconclusive")
    seen = lag.read(ports, run.account_id)
    found = verdict(decided.lag.value, seen.value)
    return (
        _reverted(ports, run, document, seen)
        if found == "worse"
        else _kept(ports, run, entitlement, found, seen)
    )


def _is_raised(run: Run) -> bool:
    return Scaling.stored(run.inputs).new_concurrency > Decided.of(run).previous


def _kept(
    ports: Ports,
    run: Run,
    entitlement: Entitlement | None,
    found: Verdict,
    seen: Reading | None = None,
) -> Result:
    """The limit stays; where that did not help the next change waits.

    A receipt says what was seen, where anything could be seen.
    """
    facts = Verified(receipt_id=Applied.of(run).receipt_id, verdict=found)
    proofs = [_verified(ports, run, found, seen)] if _is_verified(run) else []
    if entitlement is None:
        return Result(facts, proofs)
    document, history = history_of(ports, entitlement)
    after = history.helped() if found == "better" else history.in_vain_again(ports.clock.now())
    moved = [] if after == history else [kept(entitlement, document, after)]
    return Result(facts, [*moved, *proofs])


def _verified(ports: Ports, run: Run, found: Verdict, seen: Reading | None) -> Create:
    applied, decided, asked = Applied.of(run), Decided.of(run), Scaling.stored(run.inputs)
    is_known = seen is not None and seen.value is not None
    return receipt(
        ports,
        "governor_scale_verified",
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        status="verified",
        duration_ms=elapsed_ms(applied.applied_at, ports.clock.now()),
        run_id=run.run_id,
        sku_id=decided.sku_id,
        entitlement_id=asked.entitlement_id,
        concurrency={"previous": decided.previous, "new": asked.new_concurrency},
        verifies_receipt_id=applied.receipt_id,
        trigger=asked.trigger,
        verdict=found,
        lag_before=decided.lag.value,
        lag_after=seen.value if is_known and seen else None,
        lag_as_of=seen.as_of if is_known and seen else None,
    )


def _reverted(ports: Ports, run: Run, document: Document, seen: Reading) -> Result:
    applied, decided, asked = Applied.of(run), Decided.of(run), Scaling.stored(run.inputs)
    entitlement, now = Entitlement.stored(document.data), ports.clock.now()
    policy = limits.policy_of(ports, entitlement)
    after, cost_usd = limits.limited(entitlement, policy, decided.previous, run, ports)
    rose = _rose(ports, asked, entitlement)
    proof = receipt(
        ports,
        "governor_scale_reverted",
        run.account_id,
        run.run_id,
        status="reverted",
        duration_ms=elapsed_ms(applied.applied_at, now),
        reverts_receipt_id=applied.receipt_id,
        trigger=asked.trigger,
        lag_before=decided.lag.value,
        lag_after=seen.value,
        lag_as_of=seen.as_of,
        arrivals_rose=rose,
        **fields_of(run, entitlement, asked.new_concurrency, decided.previous, cost_usd),
    )
    found, history = history_of(ports, entitlement)
    history = _taken_back(history, asked, decided).changed(now).in_vain_again(now, longer=not rose)
    limit = Update(document.path, after.document(), document.revision)
    writes: list[Write] = [limit, kept(entitlement, found, history), proof]
    return Result(Verified(receipt_id=proof.data["receipt_id"], verdict="worse"), writes)


def _taken_back(history: History, asked: Scaling, decided: Decided) -> History:
    """Without what an operator asked for: what one had set before counts again."""
    return history if asked.decided_from else history.evolve(commanded=decided.commanded)


def _rose(ports: Ports, asked: Scaling, entitlement: Entitlement) -> bool:
    """Whether more arrived than before: then it was no fault of the change that more wait."""
    if asked.decided_from is None:
        return False
    now = samples.demand_of(samples_of(ports, entitlement), ports.clock.now())
    return arrivals_rose(asked.decided_from.arrivals_per_s, now.arrivals_per_s)
