"""What is old loses its content, once it is sealed; what proves it stays, and an id acts once."""

import dataclasses
import json

import pytest

from governor import paths
from ports import Ports
from ports.documents import every
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.states import missing_receipts
from tasks.retention.forget import forget_of, forget_some, is_due
from tests.engine.conftest import event, on_both
from tests.support.cancel import accept, act, action
from tests.support.faults import Fault, FaultyDocuments
from tests.support.runs import ACCOUNT, later, operations, subscribe

WORDS = "Jo Doe of Acme"
DAY_S = 86_400


@pytest.fixture
def old(ports: Ports) -> Ports:
    """An account that acted, and failed, 401 days ago, and once more since; all of it sealed."""
    ports = later(ports)
    subscribe(ports, event(), json.dumps({"note": WORDS}).encode())
    act(ports, "s-1", note=WORDS)
    act(ports, "s-2", "demo.fail", recoverable=True)
    accept(ports, "waits", note=WORDS)
    act(ports, "last")
    assert seal_ledger(ports, ACCOUNT)
    assert not is_due(ports)  # the first day only notes how far it may go
    for _ in range(201):  # two days further each day that it is asked
        ports.clock.sleep(2 * DAY_S)
        ports.watches.drop_tick("retention")
        assert is_due(ports)
    return ports


def _forget(ports: Ports, days: int = 1) -> None:
    """What beat has done on so many days, the last of which is today."""
    for _ in range(days):
        ports.watches.drop_tick("retention")
        is_due(ports)
    after = ""
    while after := forget_some(ports, after):
        pass


def _said(ports: Ports) -> str:
    folders = [f"tenants/{ACCOUNT}/{name}" for name in ("actions", "texts")]
    return json.dumps([d.data for name in (*folders, "runs") for d in every(ports.documents, name)])


@on_both
def test_content_goes_and_what_proves_it_stays(old: Ports) -> None:
    before = operations(old)
    assert _said(old).count(WORDS) == 3

    _forget(old)

    assert _said(old).count(WORDS) == 1  # what has not ended keeps its own
    assert not list(every(old.documents, f"tenants/{ACCOUNT}/texts"))
    assert operations(old) == before
    assert audit_ledger(old, ACCOUNT).findings == []
    assert list(missing_receipts(old, ACCOUNT)) == []


def test_an_id_that_comes_again_is_the_action_it_was(old: Ports) -> None:
    _forget(old)

    again = accept(old, "s-1", note=WORDS)

    found = action(old, again)
    assert (found.state, found.signal_id, found.payload) == ("complete", "s-1", "{}")
    assert operations(old).count("action_complete") == 2


def test_what_is_younger_or_not_sealed_keeps_its_content(ports: Ports) -> None:
    ports = later(ports)
    subscribe(ports, event(), json.dumps({"note": WORDS}).encode())
    act(ports, "s-1", note=WORDS)

    forget_of(ports, ACCOUNT)  # nothing is sealed
    assert seal_ledger(ports, ACCOUNT)
    ports.clock.sleep(399 * DAY_S)
    _forget(ports)

    assert _said(ports).count(WORDS) == 2


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_write_that_fails_is_made_up_for(old: Ports, fault: Fault, at: int) -> None:
    broken = FaultyDocuments(old.documents, fault, {at})

    _forget(dataclasses.replace(old, documents=broken))  # commit_once finds out what landed
    _forget(old)

    assert _said(old).count(WORDS) == 1
    assert not list(every(old.documents, f"tenants/{ACCOUNT}/texts"))


def test_a_day_looks_at_what_is_new_alone(old: Ports) -> None:
    _forget(old)
    mark = old.documents.get(f"tenants/{ACCOUNT}/retention/actions")
    counted = FaultyDocuments(old.documents, "lost", set())

    _forget(dataclasses.replace(old, documents=counted))

    assert mark
    assert mark.data["path"] == paths.action_path(ACCOUNT, paths.action_id(ACCOUNT, "last"))
    assert counted.commits == 1  # that it was done today


def test_it_is_due_once_a_day_and_never_where_all_is_kept(old: Ports) -> None:
    for_ever = dataclasses.replace(old.times, retention_days=0)
    old.watches.drop_tick("retention")

    assert not is_due(dataclasses.replace(old, times=for_ever))
    assert [is_due(old), is_due(old)] == [True, False]


def test_a_clock_that_is_years_ahead_deletes_two_days_content_at_most(ports: Ports) -> None:
    ports = later(ports)
    assert not is_due(ports)
    subscribe(ports, event(), json.dumps({"note": WORDS}).encode())
    act(ports, "s-1", note=WORDS)
    act(ports, "last")
    assert seal_ledger(ports, ACCOUNT)
    ports.clock.sleep(3_650 * DAY_S)

    _forget(ports)

    assert _said(ports).count(WORDS) == 2
