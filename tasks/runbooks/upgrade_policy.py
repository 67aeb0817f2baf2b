"""Runbook 2, Upgrade Policy: a new version of a policy comes into force in every governor, hot.

A version that takes something away from anybody is skipped, with a report, for a person to look at.
An operator may force it, naming the very report that is overridden.
"""

from collections.abc import Sequence
from typing import Any

from governor import paths
from governor.compatibility import number_of
from governor.fsm import RUN_OPEN, RunState
from governor.records import SYSTEM_ACCOUNT
from governor.runs import Effect, Run, StepResult, Trigger
from governor.slo import contract
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Write, every
from tasks.governors import broadcast, policies
from tasks.governors.moves import Target
from tasks.manual import Door, Manual
from tasks.receipts.commit import alert, explained, receipt
from tasks.runbooks.upgrade import rollout
from tasks.runbooks.upgrade.comparison import (
    NAME,
    Checked,
    PolicyUpgrade,
    asked_of,
    compare,
    report,
    report_sha256,
    skip_alert,
)
from tasks.runs import intake
from tasks.runs.definition import Chunk, Result, Runbook, Step
from tasks.sweep import isolating_errors


class _Flipped(StepResult):
    step = f"{NAME}.flip"

    flipped_at: str


def ask(ports: Ports, asked: PolicyUpgrade) -> Run | None:
    """Begin an upgrade, or find its run; None where the version is in force in every governor.

    One that was skipped has another run once its report has changed.

    Raises:
        InputError: ``no-policy``: the version is not registered.
        OutageError: it may have begun; repeating is safe.
    """
    text = policies.text_of(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    pointer = policies.pointer_of(ports, asked.sku_id, asked.plan_type)
    if pointer and pointer.data["policy_version"] == asked.policy_version:
        found = ports.documents.get(paths.run_path(str(pointer.data.get("run_id"))))
        run = Run.stored(found.data) if found else None
        return run if run and run.state in RUN_OPEN else None
    findings = report(
        ports, policies.load(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    )
    words = [policies.digest_of(text), report_sha256(findings), asked.model_dump_json()]
    return _begin(ports, asked, policies.digest_of("\n".join(words).encode()))


def catch_up(ports: Ports, sku_id: str, plan_type: str, behind: str, key: str) -> Run | None:
    """Move governors that are on a version which is not in force any more.

    None where the version in force is not higher than the one they are on.
    """
    pointer = policies.pointer_of(ports, sku_id, plan_type)
    if pointer is None or number_of(pointer.data["policy_version"]) <= number_of(behind):
        return None
    present = str(pointer.data["policy_version"])
    asked = PolicyUpgrade(
        sku_id=sku_id, plan_type=plan_type, policy_version=present, catches_up=True
    )
    return _begin(ports, asked, f"behind/{key}/{present}", Trigger.SCHEDULE)


def move_laggards(ports: Ports) -> None:
    """Look for governors that were left behind, whatever happened, and have them moved.

    One that refused a version is moved too, once that fits its state, use and limits.
    """
    hour = timestamp(ports.clock.now())[:13]
    for pointer in every(ports.documents, "policies"):
        with isolating_errors(pointer.path):
            sku_id, plan_type = policies.plan_of(pointer)
            told = rollout.status(ports, sku_id, plan_type)
            behind = [v for v in told["governors"] if number_of(v) < number_of(told["in_force"])]
            held = sum(told["governors"][version] for version in behind)
            freed = rollout.reconsider(ports, pointer, told["refused"])
            if held > len(told["refused"]) - freed:
                catch_up(ports, sku_id, plan_type, behind[0], f"{sku_id}~{plan_type}/{hour}")


def _begin(ports: Ports, asked: PolicyUpgrade, key: str, trigger: Trigger = Trigger.COMMAND) -> Run:
    run = intake.new_run(
        ports,
        RUNBOOK,
        asked.document(),
        account_id=SYSTEM_ACCOUNT,
        trigger=trigger,
        dedupe_key=key,
        turn=f"policy/{asked.sku_id}~{asked.plan_type}",
    )
    return intake.begin(ports, RUNBOOK, run)


def _tell(ports: Ports, run: Run) -> None:
    entry = run.journal.get(f"{NAME}.check")
    rules = (entry.result or {}).get("skipped") if entry else None
    if run.state is RunState.COMPLETE and rules:
        ports.alerts.send(skip_alert(ports, run, rules)[1])
    elif run.state is RunState.COMPLETE and entry and "version" in (entry.result or {}):
        done = rollout.totals(ports, run, _target(run))
        if _is_incomplete(run, done):
            ports.alerts.send(_left_behind(ports, run, done)[1])
    elif run.state in (RunState.REFUSED, RunState.FAILED) and asked_of(run).is_unattended:
        ports.alerts.send(_unattended(ports, run)[1])


def _target(run: Run) -> Target:
    asked, checked = asked_of(run), Checked.of(run)
    entry = run.journal.get(_Flipped.step)
    has_flipped = entry is not None and entry.state == "done"
    return Target(
        sku_id=asked.sku_id,
        plan_type=asked.plan_type,
        version=checked.version,
        digest=checked.digest,
        previous_version=checked.previous_version,
        compatibility=checked.compatibility,
        run_id=run.run_id,
        attempt=run.attempt,
        flipped_at=_Flipped.of(run).flipped_at if has_flipped else run.started_at,
    )


def _look_flip(_ports: Ports, run: Run) -> dict[str, Effect]:
    asked = asked_of(run)
    return {policies.pointer_path(asked.sku_id, asked.plan_type): Effect.CHANGE}


def _flip(ports: Ports, run: Run) -> Result:
    target, checked, asked = _target(run), Checked.of(run), asked_of(run)
    if asked.catches_up:
        return Result(_Flipped(flipped_at=run.started_at))
    writes: list[Write] = list(rollout.flip(ports, target, asked))
    if checked.compatibility == "forced":
        writes += explained(
            ports,
            "policy_forced",
            SYSTEM_ACCOUNT,
            run.run_id,
            asked.reason or "",
            named="reason_sha256",
            attempt=run.attempt,
            status="forced",
            run_id=run.run_id,
            duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
            sku_id=asked.sku_id,
            plan_type=asked.plan_type,
            policy_version=asked.policy_version,
            policy_digest=checked.digest,
            previous_version=checked.previous_version,
            operator=asked.operator or "unknown",
            operator_is="unverified",
            findings_sha256=checked.findings_sha256,
        )
    return Result(_Flipped(flipped_at=timestamp(ports.clock.now())), writes)


def _governors(ports: Ports, run: Run, cursor: str) -> Chunk:
    return rollout.take_part(ports, run, _target(run), cursor, asked_of(run))


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    target, fields = _target(run), dict[str, Any]()
    done = rollout.totals(ports, run, target)
    fields |= {"governors_updated": done.updated, "governors_failed": done.failed}
    fields["wave"] = "canary" if asked_of(run).is_canary else "all"
    fields["check_ms"] = run.journal[Checked.step].took_ms
    if not (asked_of(run).is_canary or asked_of(run).catches_up):
        fields |= broadcast.heard(
            ports, target.sku_id, target.plan_type, target.version, target.flipped_at
        )
    writes = _left_behind(ports, run, done)[0] if _is_incomplete(run, done) else []
    return writes, receipt(
        ports,
        "policy_broadcast",
        SYSTEM_ACCOUNT,
        run.run_id,
        attempt=run.attempt,
        status="success",
        run_id=run.run_id,
        duration_ms=elapsed_ms(target.flipped_at, ports.clock.now()),
        sku_id=target.sku_id,
        plan_type=target.plan_type,
        policy_version=target.version,
        policy_digest=target.digest,
        previous_version=target.previous_version,
        compatibility_check=target.compatibility,
        content_digest=policies.content_digest_of(
            policies.text_of(ports, target.sku_id, target.plan_type, target.version)
        ),
        **fields,
    )


def _is_incomplete(run: Run, done: rollout.Totals) -> bool:
    """Whether governors stay on a version that everybody else has left."""
    return Checked.of(run).compatibility == "rolls-back" and done.failed > 0


def _left_behind(ports: Ports, run: Run, done: rollout.Totals) -> tuple[list[Create], Alert]:
    target = _target(run)
    return alert(
        ports,
        "critical",
        "policy_return_incomplete",
        SYSTEM_ACCOUNT,
        run.run_id,
        f"{done.failed} governors cannot return to {target.version} of {target.sku_id}/"
        f"{target.plan_type}, and stay on the version that all others have left. See their "
        f"policy_rollback, and: ggen policy status {target.sku_id} {target.plan_type}",
        attempt=run.attempt,
    )


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    asked = asked_of(run)
    raised = _unattended(ports, run)[0] if asked.is_unattended else []
    proof = explained(
        ports,
        "policy_validation_failed",
        SYSTEM_ACCOUNT,
        run.run_id,
        f"{failed_step}: {run.error_detail or ''}",
        attempt=run.attempt,
        status="failed",
        duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
        sku_id=asked.sku_id,
        plan_type=asked.plan_type,
        policy_version=asked.policy_version,
        error_code=run.error_code or "unknown",
    )
    return [*proof, *raised]


def _unattended(ports: Ports, run: Run) -> tuple[list[Create], Alert]:
    """The alert of a version that was refused with no caller waiting for the answer."""
    asked = asked_of(run)
    return alert(
        ports,
        "warning",
        "policy_refused",
        SYSTEM_ACCOUNT,
        run.run_id,
        f"policy {asked.sku_id}/{asked.plan_type} {asked.policy_version} did not come into force: "
        f"{run.error_code}: {run.error_detail}",
        attempt=run.attempt,
    )


def _stuck(ports: Ports, run: Run, step: str, code: str, why: str) -> tuple[list[Create], Alert]:
    return alert(
        ports,
        "critical",
        "policy_upgrade_stuck",
        SYSTEM_ACCOUNT,
        f"{run.run_id}/{step}",
        f"{step}: {code}: {why}. It goes on by itself: ggen runs show {run.run_id}",
        attempt=run.attempt,
    )


MANUAL = Manual(
    number=2,
    title="Upgrade Policy",
    purpose=(
        "A new version of a policy comes into force in every governor of its plan, hot. What "
        "takes something away from anybody is skipped, for a person to look at."
    ),
    trigger=(
        "`ggen sync DIR`, `ggen policy upgrade FILE`, `ggen policy rollback`, `POST /v1/policies`, "
        "an object `incoming/….json` in the registry's bucket"
    ),
    inputs=PolicyUpgrade,
    outputs=(
        "the version in force for its plan, for new subscriptions at once",
        "each governor on the new version (`policy_upgraded`), or on the one before "
        "(`policy_rollback`) where the new one does not fit its state, quota use or limits",
        "an action in flight ends on the version it began on",
        "a limit that was scaled stays, as far as the new version allows",
        "a version that fails in its first minutes is left again by itself (`policy_baked`)",
    ),
    refusals=(
        ("not a valid policy, or an unknown handler", "refused before anything is stored (exit 2)"),
        (
            "not compatible with a version in use",
            "`policy_upgrade_skipped` with its findings, an alert; nothing changes",
        ),
        (
            "forced with the digest of another report",
            "`policy_validation_failed`: the report is to be looked at again",
        ),
        ("a store is down after the flip", "the run goes on by itself; an alert after 5 minutes"),
    ),
    slis=contract.UPGRADE_POLICY,
    receipts=(
        "policy_upgraded",
        "policy_rollback",
        "policy_broadcast",
        "policy_baked",
        "policy_upgrade_skipped",
        "policy_forced",
        "policy_validation_failed",
        "alert_raised",
    ),
    door=Door(
        asker="Operator",
        at="Door",
        asks="policy, by command or signed request",
        wrong=("no valid policy", "exit 2, 422"),
        well="exit 0, 200",
        badly="exit 3 or 4, 409 or 422",
    ),
    refused_with="policy_validation_failed",
    is_one_way=True,
)

RUNBOOK = Runbook(
    name=NAME,
    manual=MANUAL,
    steps=(
        Step(
            f"{NAME}.check",
            "Documents",
            does="compare the version with every one in use, rule by rule",
            undoes="",
            act=compare,
            reads_only=True,
        ),
        Step(
            f"{NAME}.flip",
            "Documents",
            does="commit the version as the one in force",
            undoes="",
            look=_look_flip,
            act=_flip,
        ),
        Step(
            f"{NAME}.governors",
            "Documents",
            does="validate each governor against its own state, move it, receipt it, boot it",
            undoes="",
            chunk=_governors,
        ),
        Step(
            f"{NAME}.finish",
            "Documents",
            does="commit policy_broadcast with the totals",
            undoes="",
        ),
    ),
    succeeded=_succeeded,
    refused=_refused,
    ended=_tell,
    no_way_back=f"{NAME}.flip",
    stuck=_stuck,
)
