"""How an entitlement's limit was changed, what holds it, and how an operator pauses it."""

from datetime import timedelta

from governor import paths
from governor.errors import InputError
from governor.scaling.decision import is_before
from governor.scaling.history import History
from governor.tenancy import Entitlement
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Write
from tasks.receipts.commit import commit_once, explained, receipt

MOST_PAUSED_S = 30 * 86_400


def history_of(ports: Ports, entitlement: Entitlement) -> tuple[Document | None, History]:
    """What we know of an entitlement's limit, and where."""
    path = paths.scaling_path(entitlement.account_id, entitlement.entitlement_id)
    found = ports.documents.get(path)
    return found, History.stored(found.data) if found else History()


def kept(entitlement: Entitlement, found: Document | None, history: History) -> Write:
    """The write that keeps it; the commit is refused where another one was faster."""
    if found:
        return Update(found.path, history.document(), found.revision)
    path = paths.scaling_path(entitlement.account_id, entitlement.entitlement_id)
    return Create(path, history.document())


def pause(
    ports: Ports, entitlement: Entitlement, seconds: float, operator: str, reason: str
) -> str:
    """Have its limit change by command alone for a while; the receipt's id.

    Raises:
        ConflictError: its limit was changed in the same moment; nothing was paused.
        InputError: no reason, or too long a time.
        OutageError: it may be paused; repeating is safe.
    """
    if not 0 < seconds <= MOST_PAUSED_S:
        raise InputError("bad-duration", "a pause lasts up to 30 days; nothing was changed")
    if not reason:
        raise InputError("no-reason", "--pause needs --reason; nothing was changed")
    found, history = history_of(ports, entitlement)
    now = ports.clock.now()
    until = timestamp(now + timedelta(seconds=seconds))
    proofs = explained(
        ports,
        "governor_scaling_paused",
        entitlement.account_id,
        f"{entitlement.entitlement_id}/{timestamp(now)}",
        reason,
        named="reason_sha256",
        status="paused",
        entitlement_id=entitlement.entitlement_id,
        sku_id=entitlement.sku_id,
        until=until,
        operator=operator,
        operator_is="unverified",
    )
    paused = history.evolve(paused_until=until, paused_by=operator)
    commit_once(ports, [kept(entitlement, found, paused), *proofs])
    return str(proofs[0].data["receipt_id"])


def resume(ports: Ports, entitlement: Entitlement, operator: str) -> str | None:
    """End a pause; the receipt's id, None where there is none. Raises as ``pause``."""
    found, history = history_of(ports, entitlement)
    now = ports.clock.now()
    if not is_before(now, history.paused_until):
        return None
    proof = receipt(
        ports,
        "governor_scaling_resumed",
        entitlement.account_id,
        f"{entitlement.entitlement_id}/{timestamp(now)}",
        status="resumed",
        entitlement_id=entitlement.entitlement_id,
        sku_id=entitlement.sku_id,
        paused_until=history.paused_until,
        operator=operator,
        operator_is="unverified",
    )
    resumed = history.evolve(paused_until=None, paused_by="")
    commit_once(ports, [kept(entitlement, found, resumed), proof])
    return str(proof.data["receipt_id"])
