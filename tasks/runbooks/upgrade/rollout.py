"""What Runbook 2 brings about: the version in force flips, then each governor takes it, or not."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from governor.compatibility import number_of
from governor.errors import ConflictError, InputError
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.paths import entitlement_path
from governor.policy import Policy
from governor.records import Record
from governor.runs import Run
from governor.tenancy import Entitlement
from ports import Ports
from ports.documents import Create, Document, Query, Update, Where, Write, every
from tasks.governors import broadcast, moves, policies
from tasks.governors.boot import boot_governor
from tasks.governors.moves import Target
from tasks.receipts.commit import commit_once
from tasks.runbooks.upgrade import watches
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tasks.runs.definition import Chunk

_AT_ONCE = 100


class Totals(Record):
    """``policies/{sku}~{plan}/rollouts/{run_id}``: what became of the governors so far."""

    updated: int = 0
    failed: int = 0


def totals(ports: Ports, run: Run, target: Target) -> Totals:
    """What became of the governors of a run."""
    found = ports.documents.get(_path(run, target))
    return Totals.stored(found.data) if found else Totals()


def take_part(ports: Ports, run: Run, target: Target, cursor: str, asked: PolicyUpgrade) -> Chunk:
    """The next governors: each changed with its receipt; those of the part before are booted.

    The cursor names where the last part began, and where it ended.
    """
    began, _, ended = cursor.partition("|")
    if not cursor:
        broadcast.tell(ports, target.sku_id, target.plan_type)
    if _is_left(ports, target, asked):
        return Chunk(None, 0)  # who has it already returns; no other gets it
    if ended:
        for account_id in _accounts(ports, target, began, ended):
            boot_governor(ports, account_id)
    page = _page(ports, target, ended)
    if not page:
        return Chunk(None, 0)
    new = policies.load(ports, target.sku_id, target.plan_type, target.version)
    found = ports.documents.get(_path(run, target))
    before = Totals.stored(found.data) if found else Totals()
    outcomes, writes = _moved(ports, target, new, [d for d in page if _is_asked(d, asked)])
    after = Totals(updated=before.updated + outcomes[True], failed=before.failed + outcomes[False])
    path = _path(run, target)
    if outcomes:
        writes.append(
            Update(path, after.document(), found.revision)
            if found
            else Create(path, after.document())
        )
    return Chunk(f"{ended}|{page[-1].path}", len(page), writes)


def _is_left(ports: Ports, target: Target, asked: PolicyUpgrade) -> bool:
    """Whether it was found meanwhile that everybody has to leave the version."""
    pointer = policies.pointer_of(ports, target.sku_id, target.plan_type)
    watch = watches.of(pointer, "canary" if asked.is_canary else "all")
    return watch is not None and watch.version == target.version and watch.state == "returning"


def _is_asked(document: Document, asked: PolicyUpgrade) -> bool:
    """Whether a governor is among those that a run is for."""
    if not asked.is_canary:
        return True
    account_id = document.path.split("/")[1]
    return watches.is_member(account_id, asked.sku_id, asked.canary, asked.percent)


def _moved(
    ports: Ports, target: Target, new: Policy, page: Sequence[Document]
) -> tuple[Counter[bool], list[Write]]:
    """Whether the version fitted each governor of a page, and what is to be written of them."""
    outcomes, writes = Counter[bool](), list[Write]()
    for document in page:
        entitlement = Entitlement.stored(document.data)
        if moves.is_meant(entitlement, target):
            fits, more = moves.moved(ports, target, document, entitlement, new)
            outcomes[fits] += 1
            writes += more
        elif entitlement.policy_run == target.run_id:  # at its own admission, before the sweep came
            outcomes[entitlement.policy_version == target.version] += 1
    return outcomes, writes


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


def flip(ports: Ports, target: Target, asked: PolicyUpgrade) -> list[Write]:
    """The write by which a version comes into force, or on trial.

    A version that is a way back to one that was good before is known to be good.
    """
    path = policies.pointer_path(target.sku_id, target.plan_type)
    pointer = policies.pointer_of(ports, target.sku_id, target.plan_type)
    former: dict[str, Any] = dict(pointer.data) if pointer else {}
    baked = watches.baked(former) if former else []
    new = policies.load(ports, target.sku_id, target.plan_type, target.version)
    is_known_good = new.rolls_back in baked
    watch = watches.begin(
        ports,
        target,
        new,
        _digest_of_good(ports, target, former),
        is_known_good=is_known_good,
        accounts=asked.canary,
        percent=asked.percent,
    )
    if asked.is_canary:
        data = {**former, "canary": watch.document()}
    else:
        was = {*former.get("was_in_force", []), target.previous_version}
        data = {
            "policy_version": target.version,
            "was_in_force": sorted(was, key=number_of),
            "compatibility": target.compatibility,
            "previous_version": target.previous_version,
            "policy_digest": target.digest,
            "flipped_at": watch.flipped_at,
            "run_id": target.run_id,
            "attempt": target.attempt,
            "baked": [*baked, *([target.version] if watch.state == "passed" else [])],
            "returned": [
                *former.get("returned", []),
                *([asked.returns_from] if asked.returns_from else []),
            ],
            "bake": watch.document(),
        }
        canary = watches.of(pointer, "canary")
        if canary and number_of(canary.version) > number_of(target.version):
            data["canary"] = canary.document()
    return [Update(path, data, pointer.revision) if pointer else Create(path, data)]


def _digest_of_good(ports: Ports, target: Target, former: dict[str, Any]) -> str:
    """Of the version that a new one is measured against."""
    good = watches.newest_good(former) if former else None
    if good is None:
        return ""
    return policies.digest_of(policies.text_of(ports, target.sku_id, target.plan_type, good))


def reconsider(ports: Ports, pointer: Document, refused: Sequence[str]) -> int:
    """Let governors that refused a version have it offered again whose state has changed since.

    How many; the version in force fits them now.
    """
    target = moves.in_force(pointer)
    if target is None:
        return 0
    new = policies.load(ports, target.sku_id, target.plan_type, target.version)
    count = 0
    for name in refused:
        document = ports.documents.get(entitlement_path(*name.split("/")))
        if document is None:
            continue
        entitlement = Entitlement.stored(document.data)
        if entitlement.refused_policy == target.digest and not moves.unfit(ports, entitlement, new):
            after = entitlement.evolve(refused_policy=None)
            with contextlib.suppress(ConflictError):  # it moves just now: at the next hour
                commit_once(ports, [Update(document.path, after.document(), document.revision)])
                count += 1
    return count


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
        "bake": _shown(pointer, "all"),
        "canary": _shown(pointer, "canary"),
        "processes": broadcast.processes(
            ports, sku_id, plan_type, str(pointer.data["policy_version"])
        ),
        "processes_are": "workers' parents, which answer for their children, and ingresses",
    }


def _shown(pointer: Document, wave: watches.Wave) -> dict[str, Any] | None:
    """How a version on trial does, as ``status`` shows it."""
    watch = watches.of(pointer, wave)
    if watch is None:
        return None
    shown = ("version", "state", "until", "accounts", "percent")
    return {name: value for name, value in watch.document().items() if name in shown}
