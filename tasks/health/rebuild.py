"""Memory rebuilt from Documents: the only beginning of a lease where Memory had been lost.

So an emptied Memory cannot admit too much: actions under way and used quota are put back first.
"""

import logging
from collections.abc import Iterator

from governor import quota
from governor.actions import STORED_MS, UNDER_WAY, Action
from governor.errors import OutageError
from governor.fsm import ActionState
from governor.tenancy import Entitlement
from governor.times import timestamp
from ports import Ports
from ports.documents import Document, Where, every
from ports.slots import Slot
from tasks import publish
from tasks.governors.boot import boot_governor

_LOG = logging.getLogger("ggen.health")
_STEP, _STEP_S = 100, 10
"""A rebuild gives a sign of life every so many documents, and four times in so many seconds."""


def rebuild(ports: Ports, lease_s: float) -> bool:
    """Bring Memory back from Documents, then admit again; False while another rebuild goes on.

    Raises:
        OutageError: a store did not answer, or Memory was lost again; nothing is admitted.
    """
    era = ports.lease.begin_rebuild(_STEP_S)
    if era is None:
        return False
    try:
        ports.clock.sleep(STORED_MS / 1000)  # what was admitted just before is stored by then
        restore_memory(ports, era)
        if not ports.lease.create_lease(lease_s, era, timestamp(ports.clock.now())):
            raise _lost_again()
        publish.topics()  # they may have been lost with Memory; the rebuild does not wait
    except BaseException:
        ports.lease.continue_rebuild(era, 0)
        raise
    return True


def restore_memory(ports: Ports, era: str) -> None:
    """Put back actions under way, then each tenant's use of this month and its governor.

    Never too little of its use.

    Raises:
        OutageError: as ``rebuild``.
    """
    held: list[Slot] = []
    looked_at: list[Slot] = []
    for document in _each(ports, era, "actions", Where("state", "in", UNDER_WAY), group=True):
        action = Action.stored(document.data)
        rests = action.state is ActionState.ROLLBACK_FAILED
        (looked_at if rests else held).append(Slot.of(action))
    ports.slots.restore_slots(held, looked_at)
    month = quota.month_of(ports.clock.now())
    governors = 0
    for document in _each(ports, era, "tenants"):
        account_id = document.data["account_id"]
        ports.governors.restore_use(_use_of(ports, account_id, month))
        governors += boot_governor(ports, account_id)
    _LOG.info("memory rebuilt: %d governors, %d slots in flight", governors, len(held))


def _use_of(ports: Ports, account_id: str, month: str) -> dict[tuple[str, str, str], int]:
    """How many actions of a month each entitlement of an account has; counted, and not read."""
    path, of_month = f"tenants/{account_id}", Where("month", "==", month)

    def count(*also: Where) -> int:
        return ports.documents.count(f"{path}/actions", [of_month, *also])

    bought = [Entitlement.stored(d.data) for d in every(ports.documents, f"{path}/entitlements")]
    in_all = count() if bought else 0
    if not in_all:
        return {}
    used = dict.fromkeys(bought[:1], in_all)
    if len(bought) > 1:
        used = {e: count(Where("entitlement_id", "==", e.entitlement_id)) for e in bought}
    unnamed = max(0, in_all - sum(used.values()))  # by release 0.1.0: the SKU was the entitlement
    return {
        (account_id, e.entitlement_id, month): n + unnamed * (e.entitlement_id == e.sku_id)
        for e, n in used.items()
    }


def _each(
    ports: Ports, era: str, collection: str, *where: Where, group: bool = False
) -> Iterator[Document]:
    """Every document, as long as what was restored so far is still there."""
    renewed_at = ports.clock.monotonic_s()
    for number, document in enumerate(every(ports.documents, collection, *where, group=group)):
        if number % _STEP == 0 or ports.clock.monotonic_s() > renewed_at + _STEP_S / 4:
            if not ports.lease.continue_rebuild(era, _STEP_S):
                raise _lost_again()
            renewed_at = ports.clock.monotonic_s()
        yield document


def _lost_again() -> OutageError:
    return OutageError(
        "memory-lost", "Memory was lost while it was rebuilt; it is rebuilt again", 2
    )
