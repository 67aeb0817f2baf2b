"""Count what sealed receipts measure, for metrics; read them again, for ``ggen slo``."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from governor.errors import InputError, OutageError, UnreadableError
from governor.slo.contract import BY_OPERATION, OBJECTIVES
from governor.slo.counting import counts_of
from governor.slo.objective import Attainment
from governor.times import timestamp
from ledger import contracts
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Document, Query, Where
from tasks.ledgers.known import ledgers

_LOG = logging.getLogger("ggen.ledger")
_HEARD_EACH, _PAGE = 500, 1000


def count(ports: Ports, batch: Iterable[Document]) -> None:
    """Count the receipts of a seal that this process has just created.

    Where Memory does not answer they are left out of metrics; ``attainments`` has them.
    """
    try:
        ports.measures.measure(counts_of(fields_of(batch)))
    except OutageError as error:
        _LOG.warning("sealed receipts are missing from metrics: %s", error)


def attainments(
    ports: Ports, since: datetime, reading: Callable[[int], None]
) -> dict[str, Attainment]:
    """How far each objective was met since then, from the receipts of every ledger.

    Only receipts since then are read, by their own time. ``reading`` hears how many were read,
    each few hundred.

    Raises:
        OutageError: Documents do not answer.
    """
    found = {name: Attainment(objective) for name, objective in OBJECTIVES.items()}
    for number, fields in enumerate(fields_of(receipts_since(ports, since))):
        if number % _HEARD_EACH == 0:
            reading(number)
        for objective in BY_OPERATION.get(fields["operation"], ()):
            if judged := objective.judge(fields):
                found[objective.name].add(judged)
    return found


def receipts_since(ports: Ports, since: datetime) -> Iterator[Document]:
    """The receipts of every ledger since then, ledger by ledger, by time."""
    where = [Where("timestamp", ">=", timestamp(since))]
    for account_id in ledgers(ports):
        collection = f"tenants/{account_id}/receipts"
        after: tuple[str, str] | None = None
        while page := ports.documents.scan(
            Query(collection, where=where, order_by="timestamp", after=after, limit=_PAGE)
        ):
            yield from page
            after = (str(page[-1].data["timestamp"]), page[-1].path)


def fields_of(documents: Iterable[Document]) -> Iterator[Mapping[str, Any]]:
    """The signed fields of those that are receipts; the sealer alerts of any other."""
    for document in documents:
        try:
            fields = SignedReceipt.stored(document.data).fields()
            contracts.validate(fields)
        except (InputError, UnreadableError, ValueError):
            continue
        yield fields
