"""A year of a busy tenant, day by day: how much is stored in the end, and that it still verifies.

``pytest --thorough -s tests/engine/test_year.py`` prints the table of docs/scaling.md.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ports import Ports, Times
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.seal import seal_ledger
from tasks.retention.forget import forget_some, is_due
from tests.engine.conftest import event
from tests.support.cancel import act
from tests.support.runs import ACCOUNT, later, subscribe

DAYS, ACTIONS_A_DAY, KEPT_DAYS = 365, 100, 90
NOTE = "x" * 400
"""A payload of a common size."""

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.fixture
def times() -> Times:
    return Times(retention_days=KEPT_DAYS)


def _sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Documents and bytes of text of each kind."""
    with closing(sqlite3.connect(folder / "documents.db")) as store:
        rows = store.execute(
            "SELECT grp, count(*), sum(length(data)) FROM documents GROUP BY grp ORDER BY 3 DESC"
        ).fetchall()
    return {name: (count, size) for name, count, size in rows}


def test_a_year_is_stored_and_verified(ports: Ports, tmp_path: Path) -> None:
    ports = later(ports)
    subscribe(ports, event(plan_type="professional"))
    for day in range(DAYS):
        ports.memory.extend_lease(600)
        for number in range(ACTIONS_A_DAY):
            fails = number % 50 == 0
            kind = "demo.fail" if fails else "demo.succeed"
            act(
                ports,
                f"s-{day}-{number}",
                kind,
                **({"recoverable": True} if fails else {}),
                note=NOTE,
            )
        while not seal_ledger(ports, ACCOUNT):
            pass
        ports.clock.sleep(86_400)
        ports.watches.drop_tick("retention")
        if is_due(ports):
            forget_some(ports, "")

    sizes = _sizes(tmp_path)
    file = sum(path.stat().st_size for path in tmp_path.glob("documents.db*") if path.is_file())
    for name, (count, size) in sizes.items():
        print(f"| {name} | {count:,} | {size / 2**20:.1f} MiB | {size / count:,.0f} |")  # noqa: T201
    print(f"| the file | | {file / 2**20:.1f} MiB | {file / DAYS / ACTIONS_A_DAY:,.0f} an action |")  # noqa: T201
    assert audit_ledger(ports, ACCOUNT).findings == []
    actions, receipts = sizes["actions"], sizes["receipts"]
    assert actions[0] == DAYS * ACTIONS_A_DAY
    kept = KEPT_DAYS / DAYS * len(NOTE)
    assert actions[1] / actions[0] < 1_300 + kept
    assert receipts[0] > DAYS * ACTIONS_A_DAY
