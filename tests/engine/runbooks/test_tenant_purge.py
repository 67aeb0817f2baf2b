"""Erasure: what a customer wrote goes; what proves an operation stays, and proves it still."""

import dataclasses
import json
from collections.abc import Iterator

import pytest

from governor.errors import DeniedError, InputError, OutageError, RetainedError
from governor.fsm import RunState
from governor.runs import Run
from governor.times import instant
from ports import Ports
from ports.documents import every
from tasks.archives import segments
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.states import missing_receipts
from tasks.runbooks import tenant_purge
from tasks.runbooks.tenant_purge import Purge
from tests.engine.conftest import event, on_both
from tests.support import cancel
from tests.support.cancel import act, told
from tests.support.faults import Fault, Writes, outage, watched
from tests.support.runs import ACCOUNT, later, operations, subscribe, text_of

WORDS = "Jo Doe of Acme found it too dear"
RETAINED_UNTIL = "2027-01-01T00:00:00.000000Z"


@pytest.fixture
def ended(ports: Ports) -> Ports:
    """A customer who has come, acted, failed and gone."""
    ports = later(ports)
    subscribe(ports, event(), json.dumps({"note": WORDS}).encode())
    act(ports, "s-1", note=WORDS)
    act(ports, "s-2", "demo.fail", recoverable=True)
    of = told("cancelled").evolve(cancellation_reason=WORDS)
    assert cancel.to_the_end(ports, cancel.play(ports, of).run_id).state is RunState.COMPLETE
    return ports


def _purge(ports: Ports, key: str = "purge-1", *, archives: bool = False) -> Run:
    asked = Purge(account_id=ACCOUNT, operator="ops", reason="they asked", archives=archives)
    return cancel.to_the_end(ports, tenant_purge.ask(ports, asked, key).run_id)


def _stored(ports: Ports) -> Iterator[str]:
    """Everything that is stored of the account, but for the ledger itself."""
    for folder in ("texts", "actions", "refused", "entitlements", "purges"):
        for document in every(ports.documents, f"tenants/{ACCOUNT}/{folder}"):
            yield json.dumps(document.data)
    for document in every(ports.documents, "runs"):
        yield json.dumps(document.data)


@on_both
def test_what_a_customer_wrote_is_gone_and_the_ledger_holds(ended: Ports) -> None:
    ports = ended
    assert any(WORDS in text for text in _stored(ports))
    before = operations(ports)

    run = _purge(ports)

    assert run.state is RunState.COMPLETE, run
    assert not any(WORDS in text for text in _stored(ports))
    assert not any('"s-1"' in text for text in _stored(ports))
    (purged,) = cancel.of_kind(ports, "tenant_purged")
    assert (purged["documents_deleted"], purged["documents_stripped"]) == (2, 4)
    assert (purged["operator"], purged["operator_is"]) == ("ops", "unverified")
    assert text_of(ports, purged) == "they asked"
    assert cancel.entitlement(ports).state == "purged"
    assert [o for o in operations(ports) if o != "tenant_purged"] == before
    assert seal_ledger(ports, ACCOUNT)
    assert audit_ledger(ports, ACCOUNT).findings == []
    assert list(missing_receipts(ports, ACCOUNT)) == []


def test_nothing_is_removed_while_anything_is_active(ports: Ports) -> None:
    ports = later(ports)
    subscribe(ports, event(), json.dumps({"note": WORDS}).encode())
    act(ports, "s-1", note=WORDS)
    before = list(_stored(ports))

    with pytest.raises(DeniedError) as refused:
        _purge(ports)

    assert refused.value.code == "still-active"
    assert list(_stored(ports)) == before
    with pytest.raises(InputError, match="nothing of an account"):
        tenant_purge.refuse_if_active(ports, "nobody")


def test_a_customer_who_comes_back_is_a_customer(ended: Ports) -> None:
    ports = ended
    _purge(ports)

    subscribe(ports, told("created", 30, event_id="again"))
    act(ports, "s-3")

    assert cancel.entitlement(ports).state == "active"


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_whatever_write_fails_it_is_removed_once(ended: Ports, fault: Fault) -> None:
    ports, at = ended, 1
    asked = Purge(account_id=ACCOUNT, operator="ops", reason="they asked")
    while True:
        writes = Writes(at, fault, outage)
        failing = watched(ports, writes)
        try:
            run_id = tenant_purge.ask(failing, asked, f"purge-{at}").run_id
        except OutageError:
            run_id = tenant_purge.ask(ports, asked, f"purge-{at}").run_id
        cancel.carry_on(failing, run_id)
        assert cancel.to_the_end(ports, run_id).state is RunState.COMPLETE
        if writes.count < at:
            break
        at += 1

    assert at > 4
    counts = [
        (r["documents_deleted"], r["documents_stripped"])
        for r in cancel.of_kind(ports, "tenant_purged")
    ]
    assert counts[0][1] == 4
    assert len(counts) == at


def test_a_retention_is_waited_for_and_then_the_archives_go(ended: Ports) -> None:
    class Retaining:
        def __getattr__(self, name: str) -> object:
            return getattr(ended.archives, name)

        def delete(self, name: str) -> None:
            raise RetainedError("retained", name, until=RETAINED_UNTIL)

    assert len(list(ended.archives.names(f"{ACCOUNT}/"))) == 2
    kept = dataclasses.replace(ended, archives=Retaining())  # type: ignore[arg-type]

    _purge(kept, archives=True)

    (purged,) = cancel.of_kind(ended, "tenant_purged")
    assert (purged["archives_deleted"], purged["archives_retained"]) == (0, 2)
    assert purged["retained_until"] == RETAINED_UNTIL
    tenant_purge.begin_due(ended)  # not yet
    assert not [d for d in every(ended.documents, "runs") if d.data["trigger"] == "schedule"]
    ended.clock.sleep_until(instant(RETAINED_UNTIL))  # type: ignore[attr-defined]
    tenant_purge.begin_due(ended)
    (due,) = [d for d in every(ended.documents, "runs") if d.data["trigger"] == "schedule"]
    cancel.to_the_end(ended, due.data["run_id"])

    assert [r["archives_deleted"] for r in cancel.of_kind(ended, "tenant_purged")] == [0, 2]
    assert list(ended.archives.names(f"{ACCOUNT}/")) == []
    assert list(every(ended.documents, "purges")) == []


def test_without_being_asked_for_archives_stay(ended: Ports) -> None:
    names = list(ended.archives.names(f"{ACCOUNT}/"))

    _purge(ended)

    assert list(ended.archives.names(f"{ACCOUNT}/")) == names


def test_the_marketplaces_deletion_removes_it_too(ended: Ports) -> None:
    run = cancel.play(ended, told("deleted", 9))

    assert run.state is RunState.COMPLETE
    (purged,) = cancel.of_kind(ended, "tenant_purged")
    assert (purged["asked_by"], purged.get("operator")) == ("marketplace", None)
    assert not any(WORDS in text for text in _stored(ended))
    assert operations(ended).count("entitlement_active") == 1  # it provisions nothing


@pytest.mark.parametrize(
    ("second", "outcome"), [(9, (RunState.FAILED, None)), (0, (RunState.COMPLETE, "stale"))]
)
def test_a_deletion_before_its_cancellation_comes_again_or_is_out_of_date(
    ports: Ports, second: int, outcome: tuple[RunState, str | None]
) -> None:
    ports = later(ports)
    subscribe(ports, told("created", 5, event_id="e-1"))

    run = cancel.play(ports, told("deleted", second))

    ignored = [r["reason"] for r in cancel.of_kind(ports, "event_ignored")]
    assert (run.state, ignored[0] if ignored else None) == outcome
    assert run.retryable is (outcome[1] is None)


def test_a_deletion_of_what_never_was_is_acknowledged(ports: Ports) -> None:
    run = cancel.play(later(ports), told("deleted"))

    assert run.state is RunState.COMPLETE
    assert [r["reason"] for r in cancel.of_kind(ports, "event_ignored")] == ["no-entitlement"]


def test_a_plan_ends_with_the_subscription_it_was_made_for(ended: Ports) -> None:
    class Retaining:
        def __getattr__(self, name: str) -> object:
            return getattr(ended.archives, name)

        def delete(self, name: str) -> None:
            raise RetainedError("retained", name, until=RETAINED_UNTIL)

    kept = dataclasses.replace(ended, archives=Retaining())  # type: ignore[arg-type]
    _purge(kept, archives=True)
    subscribe(ended, told("created", 30, event_id="again"))
    cancel.to_the_end(ended, cancel.play(ended, told("cancelled", 40)).run_id)
    names = list(ended.archives.names(f"{ACCOUNT}/"))

    ended.clock.sleep_until(instant(RETAINED_UNTIL))  # type: ignore[attr-defined]
    tenant_purge.begin_due(ended)

    assert list(every(ended.documents, "purges")) == []
    assert list(ended.archives.names(f"{ACCOUNT}/")) == names


def test_a_retention_that_was_prolonged_is_met_again(ended: Ports) -> None:
    class Retaining:
        until = RETAINED_UNTIL

        def __getattr__(self, name: str) -> object:
            return getattr(ended.archives, name)

        def delete(self, name: str) -> None:
            raise RetainedError("retained", name, until=self.until)

    kept = dataclasses.replace(ended, archives=Retaining())  # type: ignore[arg-type]
    _purge(kept, archives=True)
    ended.clock.sleep_until(instant(RETAINED_UNTIL))  # type: ignore[attr-defined]
    for _ in range(2):  # the same date again: a clock that is ahead of the bucket's
        tenant_purge.begin_due(kept)
        for document in every(ended.documents, "runs"):
            cancel.carry_on(kept, document.data["run_id"])
    tenant_purge.begin_due(ended)
    for document in every(ended.documents, "runs"):
        cancel.carry_on(ended, document.data["run_id"])

    assert list(ended.archives.names(f"{ACCOUNT}/")) == []
    assert len(cancel.of_kind(ended, "tenant_purged")) == 4


def test_what_an_earlier_attempt_deleted_is_counted(ended: Ports) -> None:
    class Dropping:
        deleted = 0

        def __getattr__(self, name: str) -> object:
            return getattr(ended.archives, name)

        def delete(self, name: str) -> None:
            ended.archives.delete(name)
            self.deleted += 1
            if self.deleted == 2:
                raise OutageError("objects-unavailable", "the reply was lost")

    _purge(dataclasses.replace(ended, archives=Dropping()), archives=True)  # type: ignore[arg-type]

    assert [r["archives_deleted"] for r in cancel.of_kind(ended, "tenant_purged")] == [2]


def test_after_a_purge_of_archives_the_next_one_is_whole(ended: Ports) -> None:
    assert segments.cut_next(ended, ACCOUNT, 2)
    assert not segments.is_due(ended, ACCOUNT, 2)  # it has ended
    _purge(ended, archives=True)
    subscribe(ended, told("created", 30, event_id="again"))
    cancel.to_the_end(ended, cancel.play(ended, told("cancelled", 40)).run_id)

    end = cancel.of_kind(ended, "decommission_complete")[-1]
    assert end.get("segments", []) == []
    assert segments.up_to(ended, ACCOUNT, 100) == []


def test_the_event_that_erases_is_not_kept_itself(ended: Ports) -> None:
    of = told("deleted", 9).evolve(cancellation_reason=WORDS)
    run = cancel.begin(ended, of, json.dumps({"cancellation_reason": WORDS}).encode())

    assert cancel.to_the_end(ended, run.run_id).state is RunState.COMPLETE
    assert not any(WORDS in text for text in _stored(ended))
    again = cancel.begin(ended, of, b"{}")  # in other bytes
    assert again.receipt_id == cancel.of_kind(ended, "tenant_purged")[0]["receipt_id"]
