"""``ggen policy publish|upgrade|rollback``, ``ggen sync``: versions brought into force."""

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from adapters.local.waiting import until
from cli.policies.report import line_of
from cli.stores import opened
from governor.compatibility import is_compatible, number_of
from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.policy import MAX_POLICY_BYTES, Policy
from governor.runs import Run
from ledger.checkpoint import check_vkey, sign_text, vkey
from ports import Ports
from tasks.governors import policies
from tasks.governors.broadcast import WATCHED
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade import back, comparison, watches
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tasks.runs.journal import load

_WITHIN_S = 60.0
_MIN_REASON_CHARS = 10
_MAX_SIGNATURE_CHARS = 16 * 1024
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Forced:
    """An operator's word: why an incompatible version is forced, and which report was read."""

    reason: str
    report: str


def publish(file: Path) -> tuple[dict[str, Any], str]:
    """Register a version; the first one of a plan comes into force at once."""
    done = comparison.register(opened(), _read(file), _signature(file))
    policy = done.policy
    value = {**_name(policy), "policy_digest": done.digest, "in_force": done.in_force}
    plan = f"policy {policy.sku_id}/{policy.plan_type}"
    if done.in_force == policy.policy_version:
        return value, f"{plan} {done.in_force} is in force"
    return value, (
        f"{plan} {policy.policy_version} is registered; {done.in_force} stays in force. Bring it "
        f"into force: ggen policy upgrade {file}"
    )


def compared(file: Path) -> tuple[dict[str, Any], str]:
    """What a version would change, and whether it is compatible; nothing is stored."""
    ports = opened()
    policy, text = policies.parse(_read(file))
    findings = comparison.report(ports, policy)
    pointer = policies.pointer_of(ports, policy.sku_id, policy.plan_type)
    value = {
        **_name(policy),
        "policy_digest": policies.digest_of(text),
        "in_force": pointer.data["policy_version"] if pointer else None,
        "is_compatible": is_compatible(findings),
        "report_sha256": comparison.report_sha256(findings),
        "findings": [comparison.row(finding) for finding in findings],
    }
    lines = [*map(line_of, findings), f"report {value['report_sha256']}"]
    verdict = "compatible" if value["is_compatible"] else "NOT compatible: it would be skipped"
    if not value["is_compatible"]:
        force = f"--force --reason … --report {value['report_sha256']}"
        lines.append(f"to bring it into force all the same: ggen policy upgrade {file} {force}")
    if (present := value["in_force"]) and number_of(str(present)) >= number_of(
        policy.policy_version
    ):
        verdict = f"{present} is in force, which is not lower: it would be refused"
    return value, "\n".join([*lines, f"=> {verdict}; nothing was changed (--dry-run)"])


def upgrade(
    file: Path, forced: Forced | None, wave: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Register a version, bring it into force in every governor, and wait for the end.

    ``wave`` names those that try it first, if any: ``canary`` (accounts), ``percent``.

    Raises:
        InputError: no valid policy; nothing was stored.
        ConflictError: it was skipped as incompatible, or this number is registered with other
            content; the version in force stays.
        DeniedError: the run failed, for example since the report is another by now.
        OutageError: it goes on still; says how to see it.
    """
    ports = opened()
    done = comparison.register(ports, _read(file), _signature(file))
    return _in_force(ports, done.policy, forced, wave)


def rollback(sku_id: str, plan_type: str, to: str | None) -> tuple[dict[str, Any], str]:
    """Bring the content of an earlier version into force again, as a new version.

    Raises:
        InputError: there is no such version, or none before the one in force.
    """
    ports = opened()
    pointer = policies.pointer_of(ports, sku_id, plan_type)
    canary = watches.of(pointer, "canary")
    before = to or (pointer.data.get("previous_version") if pointer else None)
    if to is None and pointer and canary and canary.state in WATCHED:
        before = pointer.data["policy_version"]  # only those that try another one return
    if pointer is None or before is None:
        raise InputError("no-policy", f"no version of {sku_id}/{plan_type} was in force before")
    present = policies.in_force(ports, sku_id, plan_type)
    if to is None and present.rolls_back and before != present.policy_version:
        raise InputError(
            "no-policy",
            f"{present.policy_version} is a way back itself, to {present.rolls_back}: name the "
            "version with --to. Nothing was changed",
        )
    policy = back.register(ports, sku_id, plan_type, str(before))
    value, told = _in_force(ports, policy, None)
    return value, f"{told}, with the content of {before}"


def sign(file: Path, key_file: Path, name: str) -> tuple[dict[str, Any], str]:
    """Sign a policy's canonical JSON with an Ed25519 key (PEM), into ``FILE.sig``.

    Raises:
        InputError: no valid policy, no such key, or a name with a space or a plus sign.
    """
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (ValueError, TypeError, OSError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            "bad-key", f"{key_file} is no Ed25519 key: openssl genpkey -algorithm ed25519 -out FILE"
        )
    verifier = vkey(name, key.public_key())
    check_vkey(verifier)
    _, text = policies.parse(_read(file))
    beside = file.with_name(f"{file.name}.sig")
    beside.write_text(sign_text(f"{text.decode()}\n", name, key))
    value = {"signature": str(beside), "verifier_key": verifier}
    return value, f"{beside} is written; it is verified by GGEN_POLICY_KEYS={verifier}"


def sync(folder: Path, *, dry_run: bool = False) -> tuple[list[dict[str, Any]], str, int]:
    """Bring each policy of a folder into force; the exit code is that of the worst outcome.

    Each file is one idempotent run. A file that fails keeps no other from its turn. With
    ``dry_run`` each is compared, and 4 says that one is not compatible; nothing is changed.
    """
    files = sorted(folder.glob("*.json"), key=_order)
    if not files:
        raise InputError("no-policies", f"there is no *.json in {folder}; nothing was changed")
    rows, lines, code = list[dict[str, Any]](), list[str](), 0
    for file in files:
        try:
            value, text = compared(file) if dry_run else _synced(file)
            code = max(code, 0 if value.get("is_compatible", True) else ConflictError.exit_code)
            rows.append({"file": file.name, "error": None, **value})
            lines.append(f"{file.name}: {text}")
        except GovernorError as error:
            rows.append({"file": file.name, "error": error.code, "detail": error.detail})
            lines.append(f"{file.name}: {error.code}: {error.detail}")
            code = max(code, error.exit_code)
    return rows, "\n".join(lines), code


def _synced(file: Path) -> tuple[dict[str, Any], str]:
    ports = opened()
    policy = comparison.register(ports, _read(file), _signature(file)).policy
    present = policies.in_force(ports, policy.sku_id, policy.plan_type).policy_version
    if number_of(policy.policy_version) < number_of(present):
        return {**_name(policy), "outcome": "superseded"}, f"{present} is in force, which is newer"
    return _in_force(ports, policy, None)


def _in_force(
    ports: Ports, policy: Policy, forced: Forced | None, wave: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    name = f"{policy.sku_id}/{policy.plan_type} {policy.policy_version}"
    asked = _asked(policy, wave or {})
    if forced:
        if not _DIGEST.fullmatch(forced.report):
            raise InputError("no-report", "--report takes the 64 hex digits that --dry-run shows")
        if len(forced.reason) < _MIN_REASON_CHARS:
            raise InputError("no-reason", "a reason has at least ten characters")
        asked = asked.evolve(
            report_sha256=forced.report, operator=getpass.getuser()[:256], reason=forced.reason
        )
    began = upgrade_policy.ask(ports, asked)
    if began is None:
        return {**_name(policy), "outcome": "in-force"}, f"{name} is in force already"
    run = _ended(ports, began.run_id)
    if run.state is not RunState.COMPLETE:
        raise DeniedError(run.error_code or "failed", f"{name}: {run.error_detail}")
    entry = run.journal[f"{comparison.NAME}.check"]
    if rules := entry.result.get("skipped"):
        raise ConflictError(
            "not-compatible",
            f"{name} was skipped: {', '.join(rules)}. The version in force stays. What it breaks, "
            "and how to force it: ggen policy upgrade FILE --dry-run",
        )
    value = {**_name(policy), "outcome": "upgraded", "run_id": run.run_id}
    value["receipt_id"] = run.receipt_id or ""
    if asked.is_canary:
        return value, (
            f"{name} is tried by those that were named, receipt {run.receipt_id}. All others "
            f"follow if it does well: ggen policy status {policy.sku_id} {policy.plan_type} --watch"
        )
    return value, f"{name} is in force, receipt {run.receipt_id}"


def _asked(policy: Policy, wave: Mapping[str, Any]) -> PolicyUpgrade:
    try:
        return PolicyUpgrade.model_validate({**_name(policy), **wave})
    except ValidationError:
        raise InputError("bad-canary", "--canary takes account ids, 1,000 at most") from None


def _ended(ports: Ports, run_id: str) -> Run:
    try:
        until(lambda: load(ports, run_id)[1].state not in RUN_OPEN, _WITHIN_S)
    except TimeoutError:
        detail = (
            f"no end within {_WITHIN_S:g} s. Its run {run_id} is stored and takes effect once the "
            f"stack runs: ggen up. To drop it: ggen runs cancel {run_id} --reason …"
        )
        raise OutageError("still-upgrading", detail) from None
    return load(ports, run_id)[1]


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise InputError("unreadable", f"cannot read {file}: {error.strerror}") from None


def _signature(file: Path) -> str:
    """What lies beside a policy as ``FILE.sig``; empty where nothing does."""
    beside = file.with_name(f"{file.name}.sig")
    return beside.read_text(errors="replace")[:_MAX_SIGNATURE_CHARS] if beside.exists() else ""


def _order(file: Path) -> tuple[str, tuple[int, ...], str]:
    """The versions of one plan in their order, so that a folder may hold several."""
    try:
        policy, _ = policies.parse(_read(file))
    except GovernorError:
        return "", (), file.name
    return f"{policy.sku_id}~{policy.plan_type}", number_of(policy.policy_version), file.name


def _name(policy: Policy) -> dict[str, str]:
    return {
        "sku_id": policy.sku_id,
        "plan_type": policy.plan_type,
        "policy_version": policy.policy_version,
    }
