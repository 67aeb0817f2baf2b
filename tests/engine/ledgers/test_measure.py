"""What sealed receipts measure: counted once by their sealer, and read again from the record."""

from datetime import timedelta

from governor.slo.contract import OBJECTIVES
from ports import Ports
from ports.documents import Create
from tasks.ledgers import measure, seal
from tasks.ledgers.seal import seal_ledger
from tasks.receipts.commit import commit_once, receipt
from tests.support.faults import Writes, outage
from tests.support.ledgers import ACCOUNT, build, watched

COMPLETE = "duration|action_complete|inf"


def _rolled_back(ports: Ports, subject: str, took_ms: int) -> Create:
    return receipt(
        ports,
        "action_rolled_back",
        ACCOUNT,
        subject,
        status="rolled_back",
        duration_ms=took_ms,
        action_id=f"action-{subject}",
        entitlement_id="demo-sku",
        sku_id="demo-sku",
        signal_type="demo.succeed",
        previous_action_receipt_id="00000000-0000-8000-8000-000000000000",
        rollback_duration_ms=took_ms,
    )


def _attained(ports: Ports) -> dict[str, tuple[int, int]]:
    since = ports.clock.now() - timedelta(days=1)
    found = measure.attainments(ports, since, lambda _count: None)
    return {name: (each.events, each.bad) for name, each in found.items()}


def _counted(ports: Ports) -> dict[str, tuple[int, int]]:
    counts = ports.measures.measured()
    return {n: (counts.get(f"events|{n}", 0), counts.get(f"bad|{n}", 0)) for n in OBJECTIVES}


def test_metrics_and_the_record_count_the_same(ports: Ports) -> None:
    build(ports)
    commit_once(ports, [_rolled_back(ports, "quick", 99), _rolled_back(ports, "slow", 100)])
    assert seal_ledger(ports, ACCOUNT)

    assert _counted(ports) == _attained(ports)
    assert _attained(ports)["recover_action_rollback"] == (2, 1)
    assert ports.measures.measured()[COMPLETE] == 15


def test_receipts_before_the_window_are_no_events(ports: Ports) -> None:
    build(ports)
    since = ports.clock.now() + timedelta(seconds=1)

    found = measure.attainments(ports, since, lambda _count: None)

    assert not any(each.events for each in found.values())


def test_a_seal_whose_commit_was_reported_failed_is_counted_once(ports: Ports) -> None:
    landed = Writes(1, "landed", outage)
    faulty = watched(ports, landed)
    build(ports, batches=0)
    commit_once(ports, [_rolled_back(ports, "one", 5)])

    seal_ledger(faulty, ACCOUNT)
    seal.sweep(ports)

    assert _counted(ports)["recover_action_rollback"] == (1, 0)


def test_a_document_that_is_no_receipt_is_not_counted(ports: Ports) -> None:
    build(ports, batches=1)
    spoilt = {"payload": "{}", "sha256": ""}
    ports.documents.commit([Create(f"tenants/{ACCOUNT}/receipts/spoilt", spoilt)])

    assert _attained(ports)["entitlement_signal"] == (5, 0)
