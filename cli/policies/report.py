"""``ggen policy show|diff|status|pending``: versions registered, in force, held, and waiting."""

from collections.abc import Sequence
from typing import Any

from cli.lists import table
from cli.stores import opened
from governor.compatibility import Finding, check, number_of
from governor.records import SYSTEM_ACCOUNT
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Query, Where
from tasks.governors import policies
from tasks.governors.broadcast import Process
from tasks.runbooks.upgrade import comparison, rollout


def diff(sku_id: str, plan_type: str, old: str, new: str) -> tuple[list[dict[str, str]], str]:
    """What differs between two registered versions, rule by rule."""
    ports = opened()
    before, after = (policies.load(ports, sku_id, plan_type, each) for each in (old, new))
    findings = check(after, [before])
    return [comparison.row(f) for f in findings], "\n".join(
        map(line_of, findings)
    ) or "they say the same"


def shown(sku_id: str, plan_type: str, version: str | None) -> tuple[dict[str, Any], str]:
    """A registered version's document, canonical; without a version, the one in force."""
    ports = opened()
    if version is None:
        version = policies.in_force(ports, sku_id, plan_type).policy_version
    text = policies.text_of(ports, sku_id, plan_type, version)
    value = {
        "policy_digest": policies.digest_of(text),
        "content_digest": policies.content_digest_of(text),
        "document": text.decode(),
    }
    return value, text.decode()


def status(sku_id: str, plan_type: str) -> tuple[dict[str, Any], str]:
    """Which version is in force, and how many governors are on which."""
    value = rollout.status(opened(), sku_id, plan_type)
    lines = [f"{sku_id}/{plan_type}: {value['in_force']} is in force"]
    lines += [f"  {version}: {count} governors" for version, count in value["governors"].items()]
    lines += [
        f"  {name} refused the newest one; see its policy_rollback"
        for name in value["refused"][:20]
    ]
    lines += [_trial(each) for each in (value["bake"], value["canary"]) if each]
    return value, "\n".join([*lines, *_process_lines(value["processes"])])


def _trial(watch: dict[str, Any]) -> str:
    """How a version on trial does."""
    who = ", ".join(watch["accounts"]) if watch["accounts"] else ""
    if watch["percent"]:
        who = f"{watch['percent']} % of the accounts"
    end = f" until {watch['until'][:19]}Z" if watch["state"] == "watching" else ""
    return f"  {watch['version']} is {watch['state']}{end}{f', tried by {who}' if who else ''}"


def _process_lines(processes: Sequence[Process]) -> list[str]:
    """How many processes can use the version, and each that cannot, or has not said so."""
    acked = [each for each in processes if each["state"] == "ack"]
    lines = [f"  {len(acked)} of {len(processes)} processes have it: the ingress and workers"]
    for each in processes:
        name = f"  {each['role']} (process {each['pid']} of {each['host']})"
        if each["state"] == "nack":
            lines.append(f"{name} cannot use it: {each['code']}: {each['detail']}")
        elif each["state"] == "silent":
            known = each["version"] or "none"
            lines.append(f"{name} is silent; it knows {known}, heard {each['heard_ago_s']} s ago")
        elif each["is_stale"]:
            lines.append(f"{name} is stale, heard {each['heard_ago_s']} s ago")
    return lines


def pending() -> tuple[list[dict[str, Any]], str]:
    """The versions that were skipped and are waiting for a person, newest first."""
    ports = opened()
    skipped = Where("operation", "==", "policy_upgrade_skipped")
    query = Query(
        f"tenants/{SYSTEM_ACCOUNT}/receipts",
        where=[skipped],
        order_by="timestamp",
        descending=True,
        limit=100,
    )
    rows = [row for row in map(_skipped, ports.documents.scan(query)) if _waits(ports, row)]
    if not rows:
        return [], "nothing waits"
    cells = [
        (r["sku_id"], r["plan_type"], r["policy_version"], ", ".join(r["incompatibilities"]))
        for r in rows
    ]
    return rows, table(("sku", "plan", "version", "does not fit because of"), cells)


def _skipped(document: Any) -> dict[str, Any]:
    return SignedReceipt.stored(document.data).fields()


def _waits(ports: Ports, row: dict[str, Any]) -> bool:
    pointer = policies.pointer_of(ports, row["sku_id"], row["plan_type"])
    in_force = str(pointer.data["policy_version"]) if pointer else "0.0.0"
    return number_of(row["policy_version"]) > number_of(in_force)


def line_of(finding: Finding) -> str:
    """A finding as a line for people."""
    mark = "BREAKS " if finding.is_breaking else "       "
    change = f"{finding.old or '(none)'} -> {finding.new or '(none)'}"
    return f"{mark}{finding.rule}  {finding.path}: {change}  (against {finding.against})"
