"""Runbook 2, Upgrade Policy: a new version of a policy comes into force in every governor, hot.

A version that takes something away from anybody is skipped, with a report, for a person to look at.
An operator may force it, naming the very report that is overridden.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from governor.compatibility import Finding, check, is_compatible, number_of, reused
from governor.errors import DeniedError, InputError
from governor.fsm import RunState
from governor.policy import Policy
from governor.records import SYSTEM_ACCOUNT, PlanType, Record, SemVer, SkuId
from governor.runs import Effect, Run, StepResult, Trigger
from governor.times import elapsed_ms
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Write
from tasks.governors import policies
from tasks.manual import Manual
from tasks.receipts.commit import alert, explained, receipt
from tasks.runbooks import rollout
from tasks.runbooks.rollout import Target
from tasks.runs import intake
from tasks.runs.definition import Chunk, Result, Runbook, Step

NAME = "upgrade_policy"


class PolicyUpgrade(Record):
    """What the runbook is started with."""

    sku_id: SkuId = Field(description="whose policy")
    plan_type: PlanType = Field(description="of which plan")
    policy_version: SemVer = Field(description="the registered version to bring into force")
    asked_check: bool | None = Field(
        default=None, description="what the caller says of its compatibility; never believed (D26)"
    )
    report_sha256: str | None = Field(
        default=None, description="of the report that is overridden, where it is forced"
    )
    operator: str | None = Field(default=None, max_length=256, description="who forces it")
    reason: str | None = Field(default=None, max_length=1024, description="why it is forced")


class _Checked(StepResult):
    step = f"{NAME}.check"

    digest: str
    previous_version: str
    findings_sha256: str
    is_forced: bool


class _Flipped(StepResult):
    step = f"{NAME}.flip"

    flipped_at: str


class _Skipped(StepResult):
    """Left where the version was skipped, for the alert."""

    step = f"{NAME}.check"

    skipped: list[str]


def report(ports: Ports, new: Policy) -> list[Finding]:
    """Every finding of a version against those in use, and every reserved name that it uses."""
    names = policies.versions(ports, new.sku_id, new.plan_type)
    older = [v for v in names if number_of(v) < number_of(new.policy_version)]
    in_use = policies.in_use(ports, new.sku_id, new.plan_type)

    def load(version: str) -> Policy:
        return policies.load(ports, new.sku_id, new.plan_type, version)

    former = [load(version) for version in in_use if version != new.policy_version]
    return [*check(new, former), *reused(new, [load(version) for version in older])]


def report_text(findings: Sequence[Finding]) -> str:
    """A report as JSON lines: shown, kept beside the ledger, and overridden by its digest."""
    return "\n".join(json.dumps(_row(finding), sort_keys=True) for finding in findings)


def report_sha256(findings: Sequence[Finding]) -> str:
    """The digest that names a report."""
    return hashlib.sha256(report_text(findings).encode()).hexdigest()


def _row(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in ("rule", "path", "old", "new", "against")}


def ask(ports: Ports, asked: PolicyUpgrade, trigger: Trigger = Trigger.COMMAND) -> Run | None:
    """Begin an upgrade, or find its run; None where the version is in force already.

    Raises:
        InputError: ``no-policy``: the version is not registered.
        OutageError: it may have begun; repeating is safe.
    """
    text = policies.text_of(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    pointer = policies.pointer_of(ports, asked.sku_id, asked.plan_type)
    if pointer and pointer.data["policy_version"] == asked.policy_version:
        return None
    plan = f"{asked.sku_id}~{asked.plan_type}"
    key = f"{plan}/{policies.digest_of(text)}/{asked.report_sha256 or ''}"
    run = intake.new_run(
        ports,
        RUNBOOK,
        asked.document(),
        account_id=SYSTEM_ACCOUNT,
        trigger=trigger,
        dedupe_key=key,
        turn=f"policy/{plan}",
    )
    return intake.begin(ports, RUNBOOK, run)


def _asked(run: Run) -> PolicyUpgrade:
    return PolicyUpgrade.stored(run.inputs)


def _check(ports: Ports, run: Run) -> Result:
    asked = _asked(run)
    pointer = policies.pointer_of(ports, asked.sku_id, asked.plan_type)
    if pointer is None:
        raise InputError("no-policy", "no version of this plan is in force")
    text = policies.text_of(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    new = policies.load(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    findings = report(ports, new)
    digest, previous = report_sha256(findings), str(pointer.data["policy_version"])
    is_forced = not is_compatible(findings)
    if is_forced and asked.report_sha256 is None:
        return _skip(ports, run, findings, previous, policies.digest_of(text))
    if is_forced and asked.report_sha256 != digest:
        raise DeniedError(
            "another-report",
            f"the report is {digest} by now; look at it, and force that one: ggen policy upgrade "
            "--dry-run",
        )
    if number_of(asked.policy_version) <= number_of(previous):
        raise DeniedError("version-not-higher", f"{previous} is in force; raise the version")
    return Result(
        _Checked(
            digest=policies.digest_of(text),
            previous_version=previous,
            findings_sha256=digest,
            is_forced=is_forced,
        )
    )


def _skip(
    ports: Ports, run: Run, findings: Sequence[Finding], previous: str, digest: str
) -> Result:
    asked = _asked(run)
    rules = sorted({f.rule for f in findings if f.is_breaking})
    proofs = explained(
        ports,
        "policy_upgrade_skipped",
        SYSTEM_ACCOUNT,
        run.run_id,
        report_text(findings),
        named="findings_sha256",
        attempt=run.attempt,
        status="skipped",
        run_id=run.run_id,
        duration_ms=elapsed_ms(run.started_at, ports.clock.now()),
        sku_id=asked.sku_id,
        plan_type=asked.plan_type,
        policy_version=asked.policy_version,
        policy_digest=digest,
        previous_version=previous,
        incompatibilities=rules,
    )
    raised, _ = _alert(ports, run, rules)
    return Result(
        _Skipped(skipped=rules), [*proofs, *raised], ends_with=proofs[0].data["receipt_id"]
    )


def _alert(ports: Ports, run: Run, rules: Sequence[str]) -> tuple[list[Create], Alert]:
    asked = _asked(run)
    plan = f"{asked.sku_id}/{asked.plan_type}"
    return alert(
        ports,
        "warning",
        "policy_upgrade_skipped",
        SYSTEM_ACCOUNT,
        run.run_id,
        f"policy {plan} {asked.policy_version} is not compatible ({', '.join(rules)}); the version "
        "in force stays. See: ggen policy pending",
        attempt=run.attempt,
    )


def _tell(ports: Ports, run: Run) -> None:
    entry = run.journal.get(f"{NAME}.check")
    rules = (entry.result or {}).get("skipped") if entry else None
    if run.state is RunState.COMPLETE and rules:
        ports.alerts.send(_alert(ports, run, rules)[1])


def _target(run: Run) -> Target:
    asked, checked = _asked(run), _Checked.of(run)
    entry = run.journal.get(_Flipped.step)
    has_flipped = entry is not None and entry.state == "done"
    return Target(
        sku_id=asked.sku_id,
        plan_type=asked.plan_type,
        version=asked.policy_version,
        digest=checked.digest,
        previous_version=checked.previous_version,
        compatibility="forced" if checked.is_forced else "compatible",
        flipped_at=_Flipped.of(run).flipped_at if has_flipped else run.started_at,
    )


def _look_flip(_ports: Ports, run: Run) -> dict[str, Effect]:
    asked = _asked(run)
    return {policies.pointer_path(asked.sku_id, asked.plan_type): Effect.CHANGE}


def _flip(ports: Ports, run: Run) -> Result:
    target, checked, asked = _target(run), _Checked.of(run), _asked(run)
    writes: list[Write] = list(rollout.flip(ports, run, target))
    if checked.is_forced:
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
    flipped_at = str(writes[0].data["flipped_at"])  # type: ignore[union-attr]
    return Result(_Flipped(flipped_at=flipped_at), writes)


def _governors(ports: Ports, run: Run, cursor: str) -> Chunk:
    return rollout.take_part(ports, run, _target(run), cursor)


def _succeeded(ports: Ports, run: Run) -> tuple[Sequence[Write], Create]:
    target, fields = _target(run), dict[str, Any]()
    done = rollout.totals(ports, run, target)
    fields |= {"governors_updated": done.updated, "governors_failed": done.failed}
    return [], receipt(
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
        **fields,
    )


def _refused(ports: Ports, run: Run, failed_step: str) -> Sequence[Create]:
    asked = _asked(run)
    return explained(
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
    trigger="`ggen sync DIR`, `ggen policy upgrade FILE`",
    inputs=PolicyUpgrade,
    outputs=(
        "the version in force for its plan, for new subscriptions at once",
        "each governor on the new version (`policy_upgraded`), or on the one before "
        "(`policy_rollback`) where the new one does not fit its state, quota use or limits",
        "an action in flight ends on the version it began on",
        "a limit that was scaled stays, as far as the new version allows",
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
    slis=(("broadcast to all governors", "< 500 ms"), ("compatibility check", "< 100 ms")),
    receipts=(
        "policy_upgraded",
        "policy_rollback",
        "policy_broadcast",
        "policy_upgrade_skipped",
        "policy_forced",
        "policy_validation_failed",
        "alert_raised",
    ),
    refused_with="policy_validation_failed",
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
            act=_check,
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
