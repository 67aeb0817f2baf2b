"""Versions in force, announced to every process: at once on a change, and again each 10 s."""

import contextlib
from typing import Literal, TypedDict

from governor.errors import OutageError
from governor.times import elapsed_ms, instant
from ports import Ports
from ports.broadcasts import InForce
from ports.documents import Document, every
from tasks.governors import policies
from tasks.sweep import isolating_errors

STALE_AFTER_S = 60.0
"""How old what a process knows of versions in force may be while it admits signals."""
WATCHED = ("watching", "spreading", "returning")
"""The states of a version on trial in which something is still to be done."""
_SILENT_AFTER_MS = 600
"""How long after a version came into force a process that has not answered is waited for."""
_LOST_AFTER_S = 3600.0
"""How long a process of another host is listed that says nothing any more."""


def tell(ports: Ports, sku_id: str, plan_type: str) -> None:
    """Tell every process which version of a plan is in force now, as Documents have it.

    Where Memory does not answer, ``tell_all`` does it within 10 s.
    """
    pointer = policies.pointer_of(ports, sku_id, plan_type)
    if pointer:
        with contextlib.suppress(OutageError):
            ports.broadcasts.broadcast([_in_force(ports, pointer)])


def tell_all(ports: Ports) -> None:
    """The same for every plan; this is what a process confirms its own knowledge by.

    Raises:
        OutageError: Documents or Memory do not answer. What processes know grows old.
    """
    versions = []
    for pointer in every(ports.documents, "policies"):
        with isolating_errors(pointer.path):
            versions.append(_in_force(ports, pointer))
    ports.broadcasts.broadcast(versions, is_all=True)


def _in_force(ports: Ports, pointer: Document) -> InForce:
    plan = pointer.path.partition("/")[2]
    sku_id, plan_type = policies.plan_of(pointer)
    version = str(pointer.data["policy_version"])
    digest = pointer.data.get("policy_digest")
    if digest is None:  # the first one of a plan, by an earlier release
        digest = policies.digest_of(policies.text_of(ports, sku_id, plan_type, version))
    watches = [pointer.data.get(name) or {} for name in ("bake", "canary")]
    return InForce(
        plan,
        version,
        str(digest),
        str(pointer.data.get("flipped_at", "")),
        any(watch.get("state") in WATCHED for watch in watches),
    )


class Process(TypedDict):
    """What one process says to the version in force for a plan.

    ``silent``: it has not answered to that version, ``heard_ago_s`` after it said anything last.
    """

    role: str
    host: str
    pid: int
    state: Literal["ack", "nack", "silent"]
    is_stale: bool
    version: str | None
    answered_at: str | None
    heard_ago_s: float
    code: str
    detail: str


def processes(ports: Ports, sku_id: str, plan_type: str, version: str) -> list[Process]:
    """Every process that listens, and its answer to a version; those that ended are forgotten."""
    told = []
    for each in ports.broadcasts.answers():
        if ports.processes.is_gone(each.claim) or each.ago_s > _LOST_AFTER_S:
            ports.broadcasts.forget_listening(each.name)
            continue
        plan = f"{sku_id}~{plan_type}"
        answer = next((answer for answer in each.answers if answer.plan == plan), None)
        is_new = answer is not None and answer.version == version
        told.append(
            Process(
                role=each.role,
                host=each.claim.host,
                pid=each.claim.pid,
                state=answer.outcome if answer and is_new else "silent",
                is_stale=each.ago_s + (each.confirmed_s or 0) > STALE_AFTER_S,
                version=answer.version if answer else None,
                answered_at=answer.at if answer else None,
                heard_ago_s=round(each.ago_s, 1),
                code=answer.code if answer and is_new else "",
                detail=answer.detail if answer and is_new else "",
            )
        )
    return told


def heard(
    ports: Ports, sku_id: str, plan_type: str, version: str, flipped_at: str
) -> dict[str, int]:
    """When the last process that listens answered, or for how long one has been silent.

    It waits a moment for silent processes: else the figure would be that of the quick ones alone.
    """
    while True:
        try:
            found = processes(ports, sku_id, plan_type, version)
        except OutageError:
            return {}
        waited_ms = elapsed_ms(flipped_at, ports.clock.now())
        alive = [each for each in found if not each["is_stale"]]  # not a dead host's, perhaps
        is_whole = not any(each["state"] == "silent" for each in alive)
        if is_whole or waited_ms > _SILENT_AFTER_MS:
            break
        ports.clock.sleep(0.02)
    answered = [instant(each["answered_at"]) for each in alive if each["answered_at"]]
    if not answered:
        return {}
    nacked = sum(each["state"] == "nack" for each in alive)
    last_ms = elapsed_ms(flipped_at, max(answered)) if is_whole else waited_ms
    return {"broadcast_ms": last_ms, "processes_nacked": nacked}
