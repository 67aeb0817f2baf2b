"""Count what sealed receipts measure, for metrics; read them again, for ``ggen slo``."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from governor.errors import InputError, OutageError, UnreadableError
from governor.slo.contract import BY_OPERATION, OBJECTIVES
from governor.slo.counting import counts_of
from governor.slo.objective import Attainment
from governor.times import instant
from ledger import contracts
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Document, every

_LOG = logging.getLogger("ggen.ledger")
_HEARD_EACH = 500


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
    """How far each objective was met since then, from every receipt of every ledger.

    ``reading`` hears how many were read, each few hundred.

    Raises:
        OutageError: Documents do not answer.
    """
    found = {name: Attainment(objective) for name, objective in OBJECTIVES.items()}
    for number, fields in enumerate(fields_of(every(ports.documents, "receipts", group=True))):
        if number % _HEARD_EACH == 0:
            reading(number)
        if instant(fields["timestamp"]) < since:
            continue
        for objective in BY_OPERATION.get(fields["operation"], ()):
            if judged := objective.judge(fields):
                found[objective.name].add(judged)
    return found


def fields_of(documents: Iterable[Document]) -> Iterator[Mapping[str, Any]]:
    """The signed fields of those that are receipts; the sealer alerts of any other."""
    for document in documents:
        try:
            fields = SignedReceipt.stored(document.data).fields()
            contracts.validate(fields)
        except (InputError, UnreadableError, ValueError):
            continue
        yield fields
