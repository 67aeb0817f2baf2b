"""What beat fires: messages for which there is something to do, and no others."""

import pickle
from datetime import timedelta

import pytest
import redis

import beat_schedule
from adapters import wiring
from governor.health import Drill, Fault, Outage, Scope
from ports import Ports
from ports.broadcasts import InForce
from tasks.timetable import OnlyWhile, timetable
from tests.conftest import Valkey


@pytest.fixture
def due(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> dict[str, OnlyWhile]:
    monkeypatch.setattr(wiring, "ports", lambda: ports)
    found = timetable(
        beat_schedule.entries(health_interval_s=10, probe_interval_s=2, tally_interval_s=60)
    )
    return {name: entry["schedule"] for name, entry in found.items()}


def _fires(entry: OnlyWhile) -> bool:
    return bool(entry.is_due(entry.now() - timedelta(hours=1)).is_due)


def test_a_healthy_system_is_not_probed_and_one_that_refuses_is(
    ports: Ports, due: dict[str, OnlyWhile], valkey: Valkey
) -> None:
    probe = due["recovery-probe"]
    assert not _fires(probe)
    assert ports.modes.begin_drill(Drill(drill_id="d", fault=Fault.HANG, accounts=["acme"]), 60)
    assert _fires(probe)
    ports.modes.end_drill("d")
    assert not _fires(probe)
    outage = Outage(
        outage_id="o",
        reason="sqlite_recovered",
        error_code="UNAVAILABLE",
        error_detail="away",
        began_at="2026-01-01T00:00:00.000000Z",
    )
    assert ports.modes.degrade(Scope.ALL, outage, instead_of=None)
    assert _fires(probe)
    assert ports.modes.owe(Scope.ALL, outage, instead_of=outage)
    assert not _fires(probe)
    redis.Redis.from_url(valkey.url).delete("ggen:lease")
    assert _fires(probe)


def test_ledgers_are_sealed_while_one_has_grown(ports: Ports, due: dict[str, OnlyWhile]) -> None:
    seal = due["seal"]
    for account_id, token in ports.unsealed.take_unsealed(100, 60):
        ports.unsealed.sealed(account_id, token)
    assert not _fires(seal)

    ports.unsealed.mark_unsealed("acme")

    assert _fires(seal)
    assert seal.is_due(seal.now()).next <= 0.8
    assert _fires(pickle.loads(pickle.dumps(seal)))


def test_versions_are_judged_while_one_is_watched(ports: Ports, due: dict[str, OnlyWhile]) -> None:
    judge = due["policy-bake"]
    assert not _fires(judge)

    ports.broadcasts.broadcast([InForce("crm~starter", "1.1.0", "d", is_watched=True)])

    assert _fires(judge)


def test_every_other_entry_fires_by_the_clock_alone(due: dict[str, OnlyWhile]) -> None:
    asking = {name for name, schedule in due.items() if isinstance(schedule, OnlyWhile)}

    assert asking == {"recovery-probe", "seal", "policy-bake", "scaling", "traces"}
