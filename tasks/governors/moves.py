"""A governor takes the version in force, or not: validated against its own state, with a receipt.

A governor is an entitlement here. One that a version does not fit keeps the one it has, and is not
offered this one again.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from governor import quota
from governor.compatibility import number_of
from governor.errors import ConflictError, OutageError, PolicyError
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.paths import entitlement_path
from governor.policy import Policy
from governor.records import Record, Timestamp
from governor.tenancy import Entitlement
from governor.times import elapsed_ms
from ports import Ports
from ports.documents import Document, Update, Write
from tasks.governors import policies
from tasks.governors.boot import boot_governor
from tasks.receipts.commit import commit_once, receipt


class Target(Record):
    """A version that comes into force by a run, and since when it is."""

    sku_id: str
    plan_type: str
    version: str
    digest: str
    previous_version: str
    compatibility: str
    run_id: str
    attempt: int = 1
    flipped_at: Timestamp = ""


def in_force(pointer: Document | None) -> Target | None:
    """What the pointer of a plan says; None for the first version, to which none has to move."""
    if pointer is None or "run_id" not in pointer.data:
        return None
    sku_id, plan_type = policies.plan_of(pointer)
    told: Mapping[str, Any] = pointer.data
    return Target(
        sku_id=sku_id,
        plan_type=plan_type,
        version=told["policy_version"],
        digest=told["policy_digest"],
        previous_version=told["previous_version"],
        compatibility=told["compatibility"],
        run_id=told["run_id"],
        attempt=told.get("attempt", 1),
        flipped_at=told["flipped_at"],
    )


def take_up(
    ports: Ports, account_id: str, entitlement_id: str, sku_id: str, plan_type: str
) -> bool:
    """Have one governor take the version in force now, before the sweep comes to it.

    False where it stays as it is. An outage leaves it to the sweep, too.
    """
    with contextlib.suppress(OutageError, ConflictError):
        target = in_force(policies.pointer_of(ports, sku_id, plan_type))
        document = ports.documents.get(entitlement_path(account_id, entitlement_id))
        if target is None or document is None:
            return False
        entitlement = Entitlement.stored(document.data)
        if is_meant(entitlement, target):
            new = policies.load(ports, sku_id, plan_type, target.version)
            commit_once(ports, moved(ports, target, document, entitlement, new)[1])
        return boot_governor(ports, account_id)
    return False


def is_meant(entitlement: Entitlement, target: Target) -> bool:
    """Whether a governor is to take a version: it is of that plan, and on a lower one."""
    return (
        (entitlement.sku_id, entitlement.plan_type) == (target.sku_id, target.plan_type)
        and entitlement.state in ENTITLEMENT_BOUGHT
        and number_of(entitlement.policy_version) < number_of(target.version)
        and entitlement.refused_policy != target.digest
    )


def moved(
    ports: Ports, target: Target, document: Document, entitlement: Entitlement, new: Policy
) -> tuple[bool, list[Write]]:
    """Whether the version fits, and the writes that say so: the governor's, and its receipt."""
    fields: dict[str, Any] = {
        "attempt": target.attempt,
        "duration_ms": elapsed_ms(target.flipped_at, ports.clock.now()),
        "run_id": target.run_id,
        "sku_id": target.sku_id,
        "plan_type": target.plan_type,
        "policy_version": target.version,
        "policy_digest": target.digest,
        "previous_version": entitlement.policy_version,
        "entitlement_id": entitlement.entitlement_id,
    }
    # A governor may refuse, be asked again once it has changed, and refuse again: by revision.
    subject = f"{target.run_id}/{entitlement.entitlement_id}/{document.revision}"
    of = entitlement.account_id, subject
    if fault := unfit(ports, entitlement, new):
        after = entitlement.evolve(refused_policy=target.digest, policy_run=target.run_id)
        fields |= {"status": "rolled_back", "error_code": fault}
        proof = receipt(ports, "policy_rollback", *of, **fields)
        return False, [Update(document.path, after.document(), document.revision), proof]
    limit = limit_of(entitlement, _former(ports, entitlement), new)
    after = entitlement.evolve(
        policy_version=target.version,
        concurrent_actions=limit,
        monthly_actions=new.quota.monthly_actions,
        refused_policy=None,
        policy_run=target.run_id,
    )
    fields |= {
        "status": "success",
        "governors_updated": 1,
        "governors_failed": 0,
        "compatibility_check": target.compatibility,
        "concurrent_actions": limit,
    }
    proof = receipt(ports, "policy_upgraded", *of, **fields)
    return True, [Update(document.path, after.document(), document.revision), proof]


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


def _former(ports: Ports, entitlement: Entitlement) -> Policy | None:
    try:
        return policies.load(
            ports, entitlement.sku_id, entitlement.plan_type, entitlement.policy_version
        )
    except PolicyError:
        return None
