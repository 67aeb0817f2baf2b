"""What a check says that ended late, and when a lease that nobody lengthened ran out."""

import dataclasses
import time
from datetime import timedelta
from typing import Any

import pytest

from governor.errors import OutageError
from governor.health import Fault, Outage, Scope
from governor.quota import Verdict
from governor.times import instant
from ports import Ports, Times
from ports.documents import every
from tasks.health import check
from tests.engine.conftest import event
from tests.support.health import checked, failing, is_due
from tests.support.runs import subscribe
from tests.support.waiting import until

LEASE_S = 1.0


@pytest.fixture
def times() -> Times:
    return Times(health_interval_s=0.1, probe_interval_s=0.1, store_timeout_s=0.2, lease_s=LEASE_S)


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))
    checked(ports)


class FailsAfterARecovery:
    """Documents that fail a check in whose time another process has succeeded."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def get(self, _path: str) -> Any:
        checked(self._ports)
        raise OutageError("documents-unavailable", "it was away", 1)


def test_a_failed_check_that_began_before_a_recovery_counts_for_nothing(ports: Ports) -> None:
    checked(failing(ports, Fault.REFUSE), 3)
    assert ports.memory.health(Scope.ALL).outage
    until(lambda: is_due(ports))

    late = dataclasses.replace(ports, documents=FailsAfterARecovery(ports))  # type: ignore[arg-type]
    check.probe_recovery(late)

    known = ports.memory.health(Scope.ALL)
    assert (known.outage, known.failures, known.failing_since) == (None, 0, "")


def test_a_lapse_began_when_the_lease_ran_out_however_it_was_lengthened_last(ports: Ports) -> None:
    time.sleep(0.6 * LEASE_S)  # between two checks, as a recovery may lengthen it
    assert ports.memory.extend_lease(LEASE_S)
    lengthened_at = ports.clock.now()
    until(lambda: ports.memory.standing("acme") is Verdict.NO_LEASE, 5)

    checked(ports)

    (lapse,) = [Outage.stored(d.data) for d in every(ports.documents, "outages")]
    ran_out_at = lengthened_at + timedelta(seconds=LEASE_S)
    assert abs(instant(lapse.began_at) - ran_out_at) < timedelta(seconds=0.3)


def test_a_lapse_after_a_failed_check_began_when_the_lease_ran_out(ports: Ports) -> None:
    renewed_at = ports.clock.now()
    checked(failing(ports, Fault.REFUSE))
    assert ports.memory.standing("acme") is Verdict.ADMITTED, "one failure alone refuses nothing"
    until(lambda: ports.memory.standing("acme") is Verdict.NO_LEASE, 5)

    checked(ports)

    (lapse,) = [Outage.stored(d.data) for d in every(ports.documents, "outages")]
    assert lapse.failure_count == 1
    ran_out_at = renewed_at + timedelta(seconds=LEASE_S)
    assert abs(instant(lapse.began_at) - ran_out_at) < timedelta(seconds=0.3)
