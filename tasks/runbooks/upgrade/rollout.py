"""What Runbook 2 brings about: the version in force flips, then each governor takes it, or not.

A governor is an entitlement here. It is validated against its own state; one that does not fit
keeps the version before, and is not offered this one again.
"""

from collections import Counter
from typing import Any

from governor import quota
from governor.compatibility import number_of
from governor.errors import InputError, PolicyError
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.policy import Policy
from governor.records import Record, Timestamp
from governor.runs import Run
from governor.tenancy import Entitlement
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.documents import Create, Document, Query, Update, Where, Write, every
from tasks.governors import policies
from tasks.governors.boot import boot_governor
from tasks.receipts.commit import receipt
from tasks.runs.definition import Chunk

_AT_ONCE = 100


class Target(Record):
    """What a run brings into force, and since when it is."""

    sku_id: str
    plan_type: str
    version: str
    digest: str
    previous_version: str
    compatibility: str
    flipped_at: Timestamp = ""


class Totals(Record):
    """``policies/{sku}~{plan}/rollouts/{run_id}``: what became of the governors so far."""

    updated: int = 0
    failed: int = 0


def totals(ports: Ports, run: Run, target: Target) -> Totals:
    """What became of the governors of a run."""
    found = ports.documents.get(_path(run, target))
    return Totals.stored(found.data) if found else Totals()


def take_part(ports: Ports, run: Run, target: Target, cursor: str) -> Chunk:
    """The next governors: each changed with its receipt; those of the part before are booted.

    The cursor names where the last part began, and where it ended.
    """
    began, _, ended = cursor.partition("|")
    if ended:
        for account_id in _accounts(ports, target, began, ended):
            boot_governor(ports, account_id)
    page = _page(ports, target, ended)
    if not page:
        return Chunk(None, 0)
    new = policies.load(ports, target.sku_id, target.plan_type, target.version)
    found = ports.documents.get(_path(run, target))
    before = Totals.stored(found.data) if found else Totals()
    writes: list[Write] = []
    updated = failed = 0
    for document in page:
        entitlement = Entitlement.stored(document.data)
        if not _is_meant(entitlement, target):
            continue
        fault = unfit(ports, entitlement, new)
        updated, failed = (updated, failed + 1) if fault else (updated + 1, failed)
        writes += _moved(ports, run, target, document, entitlement, new, fault)
    after = Totals(updated=before.updated + updated, failed=before.failed + failed)
    path = _path(run, target)
    if writes:
        writes.append(
            Update(path, after.document(), found.revision)
            if found
            else Create(path, after.document())
        )
    return Chunk(f"{ended}|{page[-1].path}", len(page), writes)


def unfit(ports: Ports, entitlement: Entitlement, new: Policy) -> str:
    """Why a policy does not fit a governor's own state; empty if it does."""
    if entitlement.operating_state not in new.states:
        return "state-unknown"
    month = quota.month_of(ports.clock.now())
    account_id, entitlement_id = entitlement.account_id, entitlement.entitlement_id
    if ports.governors.used(account_id, entitlement_id, month) > new.quota.monthly_actions:
        return "quota-below-use"
    in_flight = ports.governors.in_flight(account_id, [entitlement_id])
    return "limit-below-in-flight" if in_flight > new.quota.max_concurrent_actions else ""


def limit_of(entitlement: Entitlement, former: Policy | None, new: Policy) -> int:
    """The limit of actions in flight under a new policy: one that was scaled stays, as it may."""
    is_scaled = former and entitlement.concurrent_actions != former.quota.concurrent_actions
    wanted = entitlement.concurrent_actions if is_scaled else new.quota.concurrent_actions
    return min(wanted, new.quota.max_concurrent_actions)


def _is_meant(entitlement: Entitlement, target: Target) -> bool:
    return (
        entitlement.plan_type == target.plan_type
        and entitlement.state in ENTITLEMENT_BOUGHT
        and number_of(entitlement.policy_version) < number_of(target.version)
        and entitlement.refused_policy != target.digest
    )


def _moved(
    ports: Ports,
    run: Run,
    target: Target,
    document: Document,
    entitlement: Entitlement,
    new: Policy,
    fault: str,
) -> list[Write]:
    fields: dict[str, Any] = {
        "attempt": run.attempt,
        "duration_ms": elapsed_ms(target.flipped_at, ports.clock.now()),
        "run_id": run.run_id,
        "sku_id": target.sku_id,
        "plan_type": target.plan_type,
        "policy_version": target.version,
        "policy_digest": target.digest,
        "previous_version": entitlement.policy_version,
        "entitlement_id": entitlement.entitlement_id,
    }
    of = entitlement.account_id, f"{run.run_id}/{entitlement.entitlement_id}"
    if fault:
        after = entitlement.evolve(refused_policy=target.digest)
        fields |= {"status": "rolled_back", "error_code": fault}
        proof = receipt(ports, "policy_rollback", *of, **fields)
    else:
        limit = limit_of(entitlement, _former(ports, entitlement), new)
        after = entitlement.evolve(
            policy_version=target.version,
            concurrent_actions=limit,
            monthly_actions=new.quota.monthly_actions,
            refused_policy=None,
        )
        fields |= {
            "status": "success",
            "governors_updated": 1,
            "governors_failed": 0,
            "compatibility_check": target.compatibility,
            "concurrent_actions": limit,
        }
        proof = receipt(ports, "policy_upgraded", *of, **fields)
    return [Update(document.path, after.document(), document.revision), proof]


def _former(ports: Ports, entitlement: Entitlement) -> Policy | None:
    try:
        return policies.load(
            ports, entitlement.sku_id, entitlement.plan_type, entitlement.policy_version
        )
    except PolicyError:
        return None


def _page(ports: Ports, target: Target, after: str) -> list[Document]:
    of_sku = [Where("sku_id", "==", target.sku_id)]
    place = ("", after) if after else None
    return ports.documents.scan(
        Query("entitlements", group=True, where=of_sku, after=place, limit=_AT_ONCE)
    )


def _accounts(ports: Ports, target: Target, after: str, until: str) -> list[str]:
    """The accounts between two places, those that came between since then among them."""
    found = set[str]()
    while page := _page(ports, target, after):
        found |= {document.path.split("/")[1] for document in page if document.path <= until}
        after = page[-1].path
        if after >= until:
            break
    return sorted(found)


def _path(run: Run, target: Target) -> str:
    return f"{policies.pointer_path(target.sku_id, target.plan_type)}/rollouts/{run.run_id}"


def flip(ports: Ports, run: Run, target: Target) -> list[Write]:
    """The write by which a version comes into force for whoever subscribes from now on."""
    pointer = policies.pointer_of(ports, target.sku_id, target.plan_type)
    former = pointer.data if pointer else {}
    was = [*former.get("was_in_force", []), target.previous_version]
    data = {
        "policy_version": target.version,
        "was_in_force": sorted(set(was), key=number_of),
        "compatibility": target.compatibility,
        "previous_version": target.previous_version,
        "policy_digest": target.digest,
        "flipped_at": timestamp(ports.clock.now()),
        "run_id": run.run_id,
    }
    path = policies.pointer_path(target.sku_id, target.plan_type)
    return [Update(path, data, pointer.revision) if pointer else Create(path, data)]


def status(ports: Ports, sku_id: str, plan_type: str) -> dict[str, Any]:
    """Which version is in force, and how many governors are on which.

    Raises:
        InputError: no policy is registered for this SKU and plan.
    """
    pointer = policies.pointer_of(ports, sku_id, plan_type)
    if pointer is None:
        raise InputError("not-found", f"no policy is registered for {sku_id}/{plan_type}")
    held, refused = Counter[str](), list[str]()
    of_sku = [Where("sku_id", "==", sku_id)]
    for document in every(ports.documents, "entitlements", *of_sku, group=True):
        entitlement = Entitlement.stored(document.data)
        if entitlement.plan_type == plan_type and entitlement.state in ENTITLEMENT_BOUGHT:
            held[entitlement.policy_version] += 1
            if entitlement.refused_policy == pointer.data.get("policy_digest", ""):
                refused.append(f"{entitlement.account_id}/{entitlement.entitlement_id}")
    return {
        "sku_id": sku_id,
        "plan_type": plan_type,
        "in_force": pointer.data["policy_version"],
        "since": pointer.data.get("flipped_at"),
        "registered": policies.versions(ports, sku_id, plan_type),
        "governors": dict(sorted(held.items(), key=lambda item: number_of(item[0]))),
        "refused": refused,
    }
