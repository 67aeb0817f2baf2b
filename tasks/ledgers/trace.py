"""Traces of what has ended, built from the record and handed to a collector.

The sealer notes in Memory which receipts it sealed; a tick of beat builds their traces. What Memory
lost, or a collector missed, is exported from the record by ``ggen trace --since``.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from governor.actions import UNDER_WAY, Action
from governor.errors import OutageError
from governor.fsm import RUN_OPEN
from governor.paths import action_path, receipt_path, run_path
from governor.runs import Run
from governor.traces import Receipt, Span, of_action, of_run
from ledger.receipt import SignedReceipt, receipt_id
from ports import Ports
from ports.documents import Document
from tasks.ledgers.measure import fields_of, receipts_since
from tasks.receipts import troubles
from tasks.sweep import isolating_errors

_LOG = logging.getLogger("ggen.traces")
_AT_ONCE = 100
_ROUNDS, _PATIENCE_S = 20, 3.0
_REFUSED_AT_MOST = 2
_OF_ACTION = ("action_complete", "action_timeout", "action_failed", "action_rolled_back")
_ENDS_AN_ACTION = (*_OF_ACTION, "action_resolved")


def note(ports: Ports, batch: Iterable[Document]) -> None:
    """Note the receipts of a new seal, where an operator has named a collector."""
    if not ports.traces.is_on:
        return
    ended = [
        f"{fields['account_id']} {fields['receipt_id']}"
        for fields in fields_of(batch)
        if _ends_something(fields)
    ]
    if not ended:
        return
    try:
        ports.measures.note_ended(ended)
    except OutageError as error:
        _LOG.warning("traces wait for ggen trace --since: %s", error)


def export_noted(ports: Ports) -> None:
    """Export the traces of what was noted; what a collector does not take stays noted.

    Raises:
        OutageError: Documents or Memory do not answer.
    """
    give_up_at_s = ports.clock.monotonic_s() + _PATIENCE_S
    for _ in range(_ROUNDS):
        noted = ports.measures.ended(_AT_ONCE)
        if not noted:
            return
        traces = dict[str, list[Span]]()
        for each in noted:
            with isolating_errors(each):
                if fields := _receipt(ports, *each.split(" ")):
                    traces[each] = trace_of(ports, fields)
        try:
            _export(ports, traces)
        except OutageError as error:
            detail = f"traces wait: {error.detail}. GGEN_OTLP_ENDPOINT names the collector"
            troubles.tell(ports, "collector-away", detail, alerts=False)
            return
        ports.measures.forget_ended(noted)
        if ports.clock.monotonic_s() > give_up_at_s:
            return


def _export(ports: Ports, traces: Mapping[str, Sequence[Span]]) -> None:
    """Export some traces together; one that the collector refuses is logged and left out.

    Raises:
        OutageError: the collector does not answer, or refuses several: it has no room. All of them
            are exported again; ids are derived, so that a trace that comes twice is one.
    """
    try:
        ports.traces.export([span for spans in traces.values() for span in spans])
    except OutageError:
        ports.traces.export([])  # it takes an empty request, where it is there at all
        refused = list[str]()
        for name, spans in traces.items():
            try:
                ports.traces.export(spans)
            except OutageError:
                refused.append(name)
                if len(refused) > _REFUSED_AT_MOST:
                    raise
        for name in refused:
            _LOG.error("the collector refuses the trace of receipt %s: it is not exported", name)


def export_since(ports: Ports, since: datetime) -> int:
    """Export everything that ended since then, from the record; how many traces it were.

    Raises:
        OutageError: Documents or the collector do not answer; some may have been exported.
    """
    count = 0
    for fields in fields_of(receipts_since(ports, since)):
        if _ends_something(fields):
            spans = trace_of(ports, fields)
            if spans:
                ports.traces.export(spans)
                count += 1
    return count


def trace_of(ports: Ports, fields: Receipt) -> list[Span]:
    """The trace of what a receipt has ended; nothing where it ended neither action nor run.

    Raises:
        OutageError: Documents do not answer.
    """
    if fields["operation"] in _ENDS_AN_ACTION:
        return trace_of_action(ports, fields["account_id"], fields["action_id"])
    found = ports.documents.get(run_path(fields["run_id"])) if "run_id" in fields else None
    run = Run.stored(found.data) if found else None
    if run is None or run.state in RUN_OPEN or run.receipt_id != fields["receipt_id"]:
        return []
    return of_run(run, fields)


def trace_of_action(ports: Ports, account_id: str, action_id: str) -> list[Span]:
    """The trace of an action with the receipts it has by now; nothing where it is not known."""
    found = ports.documents.get(action_path(account_id, action_id))
    if found is None:
        return []
    action = Action.stored(found.data)
    return [] if action.state in UNDER_WAY else of_action(action, _receipts_of(ports, action))


def _receipts_of(ports: Ports, action: Action) -> list[Receipt]:
    ids = [receipt_id(action.account_id, operation, action.action_id) for operation in _OF_ACTION]
    ids += [
        receipt_id(action.account_id, "rollback_failed", action.action_id, attempt)
        for attempt in range(1, action.rollback_attempts + 1)
    ]
    found = [_receipt(ports, action.account_id, each) for each in ids]
    return sorted((f for f in found if f), key=lambda fields: str(fields["timestamp"]))


def _ends_something(fields: Receipt) -> bool:
    if fields["operation"] not in _ENDS_AN_ACTION:
        return "run_id" in fields
    return fields.get("rollback") != "due"  # else the receipt of its rollback ends it


def _receipt(ports: Ports, account_id: str, identity: str) -> Receipt | None:
    found = ports.documents.get(receipt_path(account_id, identity))
    return SignedReceipt.stored(found.data).fields() if found else None


def trace_of_run(ports: Ports, run_id: str) -> list[Span]:
    """The trace of a run that has ended; nothing where it is not known, or goes on."""
    found = ports.documents.get(run_path(run_id))
    run = Run.stored(found.data) if found else None
    if run is None or run.receipt_id is None:
        return []
    fields = _receipt(ports, run.account_id, run.receipt_id)
    return of_run(run, fields) if fields else []
