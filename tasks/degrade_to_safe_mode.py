"""Runbook 4's watch: health as a lease, and Memory rebuilt before anything is admitted.

A good check lengthens the lease; without one, admission refuses by itself. A check may never
create the lease: only a finished rebuild of Memory from Documents does, so that an emptied Memory
cannot admit too much.
"""

import logging
from collections import Counter
from collections.abc import Iterator

from celery.exceptions import OperationalError as CeleryUnreachable
from kombu.exceptions import OperationalError as BrokerUnreachable

from adapters import wiring
from config.settings import Settings, load
from governor import quota
from governor.actions import STORED_MS
from governor.errors import ConflictError, OutageError
from governor.fsm import ActionState
from governor.records import Action, timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Where, every
from ports.memory import Slot
from tasks.actions import UNDER_WAY, slot_of
from tasks.boot import boot_governor
from tasks.canary import ALIVE_FOR_S
from tasks.celery import LEDGER, PUBLISH_ONCE, app

_LOG = logging.getLogger("ggen.health")
_PROBE_PATH = "health/probe"
_STEP, _STEP_S = 100, 10
"""A rebuild gives a sign of life every so many documents, and four times in so many seconds."""


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
        rebuild(ports, settings.lease_s)


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


def rebuild(ports: Ports, lease_s: int) -> None:
    """Bring Memory back from Documents, then admit again; one rebuild at a time.

    Raises:
        OutageError: a store did not answer, or Memory was lost again; nothing is admitted.
    """
    era = ports.memory.begin_rebuild(_STEP_S)
    if era is None:
        return
    try:
        ports.clock.sleep(STORED_MS / 1000)  # what was admitted just before is stored by then
        restore_memory(ports, era)
        if not ports.memory.create_lease(lease_s, era):
            raise _lost_again()
        _ask_for_topics()
    except BaseException:
        ports.memory.continue_rebuild(era, 0)
        raise


def restore_memory(ports: Ports, era: str) -> None:
    """Put back what is under way, then this month's use (never too little of it), then who is who.

    Raises:
        OutageError: as ``rebuild``.
    """
    held: list[Slot] = []
    looked_at: list[Slot] = []
    for document in _each(ports, era, "actions", Where("state", "in", UNDER_WAY), group=True):
        action = Action.model_validate(document.data)
        rests = action.state is ActionState.ROLLBACK_FAILED
        (looked_at if rests else held).append(slot_of(action))
    ports.memory.restore_slots(held, looked_at)
    month = quota.month_of(ports.clock.now())
    used: Counter[tuple[str, str, str]] = Counter()
    for document in _each(ports, era, "actions", Where("month", "==", month), group=True):
        used[document.data["account_id"], document.data["sku_id"], month] += 1
    ports.memory.restore_use(used)
    governors = 0
    for document in _each(ports, era, "tenants"):
        governors += boot_governor(ports, document.data["account_id"])
    _LOG.info("memory rebuilt: %d governors, %d slots in flight", governors, len(held))


def _each(
    ports: Ports, era: str, collection: str, *where: Where, group: bool = False
) -> Iterator[Document]:
    """Every document, as long as what was restored so far is still there."""
    renewed_at = ports.clock.monotonic_s()
    for number, document in enumerate(every(ports.documents, collection, *where, group=group)):
        if number % _STEP == 0 or ports.clock.monotonic_s() > renewed_at + _STEP_S / 4:
            if not ports.memory.continue_rebuild(era, _STEP_S):
                raise _lost_again()
            renewed_at = ports.clock.monotonic_s()
        yield document


def _ask_for_topics() -> None:
    """Have the topics looked at, which may have been lost with Memory; nobody waits for that."""
    try:
        app.send_task("repair.topics", queue=LEDGER, retry_policy=PUBLISH_ONCE)
    except (CeleryUnreachable, BrokerUnreachable, OSError) as error:
        _LOG.warning("topics are not looked at before tomorrow: no broker (%s)", error)


def _lost_again() -> OutageError:
    return OutageError("memory-lost", "Memory was lost while it was rebuilt; it is rebuilt anew", 2)
