"""Everything that is asked of Documents has its index in config/firestore.indexes.json."""

from datetime import timedelta

import pytest

from cli.overview.facts import facts
from config.settings import Settings
from governor.fsm import ActionState
from governor.quota import month_of
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from ports.documents import Query, Where
from tasks import ticks
from tasks.actions import operators, reap
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.health import rebuild
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.known import next_ledger
from tasks.ledgers.measure import receipts_since
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import StoredLog
from tasks.retention.forget import forget_of, forget_some
from tasks.runs import operators as runs
from tasks.runs.journal import _start_next
from tests.engine.conftest import event
from tests.support.actions import signal_of
from tests.support.runs import subscribe

pytestmark = pytest.mark.parametrize("backend", ["google"], indirect=True)


@pytest.fixture(autouse=True)
def _something_of_everything(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))
    execute(ports, "acme", submit(ports, signal_of("s")))
    assert seal_ledger(ports, "acme")


def test_what_operators_list(ports: Ports) -> None:
    for account_id in ("acme", None):
        for only_open in (True, False):
            listed = runs.listed(ports, account_id, only_open=only_open, limit=5)
            assert len(listed) == (0 if only_open else 1)
        for state in (ActionState.COMPLETE, None):
            assert len(operators.listed(ports, account_id, state=state, limit=5)) == 1


def test_what_readers_list(ports: Ports) -> None:
    for where in ([Where("operation", "==", "action_complete")], []):
        found = ports.documents.scan(
            Query("tenants/acme/receipts", where=where, order_by="timestamp", descending=True)
        )
        assert found
    assert len(ports.documents.scan(Query("tenants/acme/entitlements"))) == 1


def test_what_sweepers_look_for(ports: Ports) -> None:
    ticks.look(ports)
    assert reap.look_at_all(ports) == 0
    _start_next(ports, {}, "account/acme")
    era = ports.memory.begin_rebuild(10)
    assert era
    rebuild.restore_memory(ports, era)
    assert ports.memory.used("acme", "demo-sku", month_of(ports.clock.now())) == 1


def test_what_the_ledger_asks_for(ports: Ports) -> None:
    report = audit_ledger(ports, "acme")
    assert not report.findings
    assert report.unsealed == 0
    last = StoredLog.of(ports, "acme").newest()
    assert last
    assert list(StoredLog.of(ports, "acme").since(ports.clock.now())) == []
    assert StoredLog.of(ports, "acme").seals_beyond(last.number) == []
    path: str | None = f"tenants/{SYSTEM_ACCOUNT}"
    seen = []
    while path := next_ledger(ports, path):
        seen.append(path)
    assert "tenants/acme" in seen
    assert list(receipts_since(ports, ports.clock.now() - timedelta(hours=1)))


def test_what_retention_and_the_overview_ask_for(ports: Ports) -> None:
    forget_of(ports, "acme")
    assert forget_some(ports, "tenants/zzz") == ""
    parts = facts(ports, Settings())
    unread = {name for name, part in parts.items() if isinstance(part, dict) and "unknown" in part}
    assert unread == set()
