"""Runbook 4's watch: health as a lease, and Memory rebuilt before anything is admitted.

A good check lengthens the lease; without one, admission refuses by itself. A check may never
create the lease: only a finished rebuild of Memory from Documents does, so that an emptied Memory
cannot admit too much.
"""

import logging
from collections import Counter

from adapters import wiring
from config.settings import Settings, load
from governor import quota
from governor.actions import STORED_MS
from governor.errors import ConflictError, OutageError
from governor.fsm import ActionState
from governor.records import Action, timestamp
from ports import Ports
from ports.documents import Create, Update, Where, every
from ports.memory import Slot
from tasks.actions import UNDER_WAY, slot_of
from tasks.boot import boot_governor
from tasks.canary import ALIVE_FOR_S
from tasks.celery import app

_LOG = logging.getLogger("ggen.health")
_PROBE_PATH = "health/probe"


@app.task(name="degrade_to_safe_mode.check", send_events=False)
def check() -> None:
    """A health check, if one is due."""
    ports = wiring.ports()
    ports.memory.beat_alive("health", ALIVE_FOR_S)
    ports.memory.beat_alive("beat", ALIVE_FOR_S)
    keep_lease(ports, load())


def keep_lease(ports: Ports, settings: Settings) -> None:
    """Commit and read back, then lengthen the lease or rebuild what Memory lost (D11).

    Each 10 s, and each 2 s while there is no lease; another beat does not make it more often.
    """
    name, every_s = "health", settings.health_interval_s
    if not ports.memory.lease_left_s():
        name, every_s = "probe", settings.probe_interval_s
    if not ports.memory.claim_tick(name, 0.9 * every_s):
        return
    probe(ports)
    if not ports.memory.extend_lease(settings.lease_s):
        ports.clock.sleep(STORED_MS / 1000)  # what was admitted just before is stored by then
        rebuild_memory(ports)
        ports.memory.create_lease(settings.lease_s)


def probe(ports: Ports) -> None:
    """Write and read one document the way a receipt is.

    Raises:
        OutageError: the store did not take it, did not give it back, or gave back another.
    """
    nonce = {"checked_at": timestamp(ports.clock.now())}
    found = ports.documents.get(_PROBE_PATH)
    try:
        ports.documents.commit([
            Update(_PROBE_PATH, nonce, found.revision) if found else Create(_PROBE_PATH, nonce)
        ])  # fmt: skip
    except ConflictError:
        return  # another check wrote between our two calls, so the store works
    back = ports.documents.get(_PROBE_PATH)
    if back is None or back.data["checked_at"] < nonce["checked_at"]:
        raise OutageError("documents-forgetful", "the store does not give back what it took", 5)


def rebuild_memory(ports: Ports) -> None:
    """Bring Memory back from Documents: governors, slots in flight, this month's use."""
    month = quota.month_of(ports.clock.now())
    used: Counter[tuple[str, str, str]] = Counter()
    for document in every(ports.documents, "actions", Where("month", "==", month)):
        used[document.data["account_id"], document.data["sku_id"], month] += 1
    under_way: dict[bool, list[Slot]] = {True: [], False: []}
    for document in every(ports.documents, "actions", Where("state", "in", UNDER_WAY)):
        action = Action.model_validate(document.data)
        under_way[action.state is not ActionState.ROLLBACK_FAILED].append(slot_of(action))
    ports.memory.restore_use(used)
    ports.memory.restore_slots(held=under_way[True], looked_at=under_way[False])
    governors = 0
    for document in every(ports.documents, "tenants"):
        if boot_governor(ports, document.data["account_id"]):
            ports.signals.create(document.data["account_id"])
            governors += 1
    _LOG.info("memory rebuilt: %d governors, %d slots in flight", governors, len(under_way[True]))
