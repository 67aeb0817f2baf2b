"""A version of a policy held against every version in use: compatible, skipped, or forced."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from governor import paths
from governor.compatibility import Finding, check, is_compatible, names_of, number_of, reused
from governor.errors import ConflictError, DeniedError, InputError
from governor.policy import Policy
from governor.records import SYSTEM_ACCOUNT, AccountId, PlanType, Record, SemVer, SkuId
from governor.runs import Run, StepResult
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Document
from tasks.governors import broadcast, policies
from tasks.receipts.commit import alert, commit_once, explained
from tasks.runbooks.upgrade import watches
from tasks.runs.definition import Result

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
    catches_up: bool = Field(
        default=False, description="whether it is in force, and only governors are left behind"
    )
    canary: list[AccountId] = Field(
        default=[], max_length=1000, description="accounts that try it first, alone"
    )
    percent: int | None = Field(
        default=None, ge=1, le=99, description="how many of the accounts try it first, by hash"
    )
    returns_from: SemVer | None = Field(
        default=None, description="the version that failed, and that everybody leaves by this one"
    )
    is_unattended: bool = Field(
        default=False, description="whether no caller waits, so that a refusal alerts"
    )
    operator: str | None = Field(default=None, max_length=256, description="who forces it")
    reason: str | None = Field(default=None, max_length=1024, description="why it is forced")

    @property
    def is_canary(self) -> bool:
        """Whether only some governors are to try it."""
        return bool(self.canary) or self.percent is not None


class Checked(StepResult):
    """What was compared, and by what right it comes into force."""

    step = f"{NAME}.check"

    version: str
    digest: str
    previous_version: str
    findings_sha256: str
    compatibility: Literal["compatible", "forced", "rolls-back"]


class _Skipped(StepResult):
    """Left where the version was skipped, for the alert."""

    step = f"{NAME}.check"

    skipped: list[str]


def register(ports: Ports, document: bytes, signature: str = "") -> policies.Registered:
    """Put a version into the registry; one that is no policy leaves a receipt, once.

    Raises:
        InputError, ConflictError: see ``tasks.governors.policies.register``.
    """
    try:
        done = policies.register(ports, document, signature)
    except InputError as error:
        proofs = explained(
            ports,
            "policy_validation_failed",
            SYSTEM_ACCOUNT,
            policies.digest_of(document),
            error.detail,
            status="failed",
            duration_ms=0,
            policy_version="unknown",
            error_code=error.code,
        )
        with contextlib.suppress(ConflictError):
            commit_once(ports, proofs)
        raise
    if done.in_force == done.policy.policy_version:
        broadcast.tell(ports, done.policy.sku_id, done.policy.plan_type)
    return done


def report(ports: Ports, new: Policy) -> list[Finding]:
    """Every finding of a version against those in use, and every reserved name that it uses."""
    pointer = policies.pointer_of(ports, new.sku_id, new.plan_type)
    present = [str(pointer.data["policy_version"])] if pointer else []
    in_use = policies.in_use(ports, new.sku_id, new.plan_type)

    def load(version: str) -> Policy:
        return policies.load(ports, new.sku_id, new.plan_type, version)

    former = [load(version) for version in in_use if version != new.policy_version]
    were = [load(version) for version in {*_were_in_force(pointer), *present}]
    gone_for_good = [policy for policy in were if not policy.rolls_back]
    held = {name for policy in former for name in names_of(policy)}  # their holders know them
    taken = [finding for finding in reused(new, gone_for_good) if finding.path not in held]
    return [*check(new, former), *taken]


def report_text(findings: Sequence[Finding]) -> str:
    """A report as JSON lines: shown, kept beside the ledger, and overridden by its digest."""
    return "\n".join(json.dumps(row(finding), sort_keys=True) for finding in findings)


def report_sha256(findings: Sequence[Finding]) -> str:
    """The digest that names a report."""
    return hashlib.sha256(report_text(findings).encode()).hexdigest()


def row(finding: Finding) -> dict[str, str]:
    """A finding as a report and ``--json`` show it."""
    return {name: getattr(finding, name) for name in ("rule", "path", "old", "new", "against")}


def asked_of(run: Run) -> PolicyUpgrade:
    """What a run was asked for."""
    return PolicyUpgrade.stored(run.inputs)


def compare(ports: Ports, run: Run) -> Result:
    """Hold the version against every one in use; end the run where it is to be skipped."""
    asked, began_at = asked_of(run), timestamp(ports.clock.now())
    pointer = policies.pointer_of(ports, asked.sku_id, asked.plan_type)
    if pointer is None:
        raise InputError("no-policy", "no version of this plan is in force")
    present = str(pointer.data["policy_version"])
    version = present if asked.catches_up else asked.policy_version  # in force by now, whichever
    text = policies.text_of(ports, asked.sku_id, asked.plan_type, version)
    _refuse_unless_wanted(ports, asked, pointer)
    new = policies.load(ports, asked.sku_id, asked.plan_type, version)
    checked = {
        "version": version,
        "digest": policies.digest_of(text),
        "previous_version": str(pointer.data.get("previous_version", present)),
    }
    if asked.catches_up:
        return _well(checked, [], pointer.data.get("compatibility", "compatible"))
    if version == present and (receipt_id := _receipt_of(ports, pointer)):
        return Result(ends_with=receipt_id)  # another run has just brought it into force
    checked["previous_version"] = present
    if number_of(version) <= number_of(present):
        raise DeniedError("version-not-higher", f"{present} is in force; raise the version")
    if new.rolls_back:
        _refuse_unless_same(ports, new, text, [*_were_in_force(pointer), present])
        return _well(checked, [], "rolls-back")
    return _judged(ports, run, new, checked, began_at)


def _refuse_unless_wanted(ports: Ports, asked: PolicyUpgrade, pointer: Document) -> None:
    """Refuse a version that no key of ours has signed, and one that was overtaken."""
    if asked.catches_up:
        return
    policies.refuse_unless_signed(ports, asked.sku_id, asked.plan_type, asked.policy_version)
    canary = watches.of(pointer, "canary")
    on_trial = canary.version if canary and canary.state in broadcast.WATCHED else None
    if asked.returns_from not in (None, pointer.data["policy_version"], on_trial):
        raise DeniedError("overtaken", f"{asked.returns_from} has been left already")
    if asked.is_canary and on_trial not in (None, asked.policy_version):
        raise DeniedError(
            "canary-on-trial",
            f"{on_trial} is tried first; wait for its end, or: ggen policy rollback",
        )


def _judged(ports: Ports, run: Run, new: Policy, checked: dict[str, str], began_at: str) -> Result:
    asked = asked_of(run)
    findings = report(ports, new)
    if is_compatible(findings):
        return _well(checked, findings, "compatible")
    if asked.report_sha256 is None:
        return _skip(ports, run, findings, checked, began_at)
    if asked.report_sha256 != (digest := report_sha256(findings)):
        raise DeniedError(
            "another-report",
            f"the report is {digest}, not the one that was named; look at it, and force that one: "
            "ggen policy upgrade FILE --dry-run",
        )
    return _well(checked, findings, "forced")


def _well(
    checked: dict[str, str],
    findings: Sequence[Finding],
    compatibility: Literal["compatible", "forced", "rolls-back"],
) -> Result:
    digest = report_sha256(findings)
    return Result(Checked(**checked, findings_sha256=digest, compatibility=compatibility))


def _refuse_unless_same(ports: Ports, new: Policy, text: bytes, in_force: Sequence[str]) -> None:
    """A way back needs no comparison: it was in force. It has to be the same, though."""
    before = policies.text_of(ports, new.sku_id, new.plan_type, str(new.rolls_back))
    is_same = policies.content_digest_of(before) == policies.content_digest_of(text)
    if not is_same or new.rolls_back not in in_force:
        detail = f"{new.rolls_back} was never in force, or its content is another"
        raise DeniedError("not-a-way-back", detail)


def _were_in_force(pointer: Document | None) -> list[str]:
    return list(pointer.data.get("was_in_force", [])) if pointer else []


def _receipt_of(ports: Ports, pointer: Document) -> str | None:
    """The receipt of the run that brought a version into force."""
    found = ports.documents.get(paths.run_path(str(pointer.data.get("run_id"))))
    return Run.stored(found.data).receipt_id if found else None


def _skip(
    ports: Ports, run: Run, findings: Sequence[Finding], checked: dict[str, str], began_at: str
) -> Result:
    asked = asked_of(run)
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
        policy_digest=checked["digest"],
        previous_version=checked["previous_version"],
        check_ms=elapsed_ms(began_at, ports.clock.now()),
        incompatibilities=rules,
    )
    raised, _ = skip_alert(ports, run, rules)
    return Result(
        _Skipped(skipped=rules), [*proofs, *raised], ends_with=proofs[0].data["receipt_id"]
    )


def skip_alert(ports: Ports, run: Run, rules: Sequence[str]) -> tuple[list[Create], Alert]:
    """The alert of a version that was skipped."""
    asked = asked_of(run)
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
