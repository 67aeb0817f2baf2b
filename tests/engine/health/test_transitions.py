"""Safe mode is entered and left by messages, which may be late, doubled or lost."""

import pytest

from governor.errors import OutageError
from governor.health import Fault, Scope
from governor.quota import Verdict
from ports import Ports, Times
from tasks.actions.admit import submit
from tasks.health import check, modes
from tasks.health.check import Transition
from tasks.outcomes import ALREADY_DONE, DONE, NOT_NEEDED
from tests.engine.conftest import event
from tests.support.actions import signal_of
from tests.support.health import checked, failing, is_due
from tests.support.runs import subscribe
from tests.support.waiting import until


@pytest.fixture
def times() -> Times:
    return Times(health_interval_s=0.1, probe_interval_s=0.1, store_timeout_s=0.2)


@pytest.fixture(autouse=True)
def _served(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))
    checked(ports)


def _found(ports: Ports, times: int = 1) -> Transition:
    """What so many checks find, whose message is on its way."""
    for _ in range(times):
        until(lambda: is_due(ports))
        found = check.check_health(ports) or check.probe_recovery(ports)
    assert found
    return found


def _enter(ports: Ports, found: Transition) -> object:
    return modes.enter(ports, found.scope, found.began, found.of, found.drill)


def _leave(ports: Ports, found: Transition) -> object:
    return modes.leave(ports, found.scope, found.began, found.of)


def test_entering_twice_is_one_outage(ports: Ports) -> None:
    found = _found(failing(ports, Fault.REFUSE), 3)

    assert [_enter(ports, found), _enter(ports, found)] == [DONE, ALREADY_DONE]
    assert ports.memory.standing("acme") is Verdict.DEGRADED


def test_a_message_that_enters_after_a_good_check_changes_nothing(ports: Ports) -> None:
    late = _found(failing(ports, Fault.REFUSE), 3)
    checked(ports)

    assert _enter(ports, late) == NOT_NEEDED
    assert submit(ports, signal_of("s"))
    again = _found(failing(ports, Fault.REFUSE), 3)
    assert _enter(ports, late) == NOT_NEEDED  # not even while the next failures add up
    assert _enter(ports, again) == DONE


def test_a_message_that_enters_and_is_lost_is_sent_by_the_next_check(ports: Ports) -> None:
    away = failing(ports, Fault.REFUSE)
    lost, again = _found(away, 3), _found(away)

    assert (lost.kind, again.kind) == ("enter", "enter")
    assert _enter(away, again) == DONE


def test_a_message_that_leaves_a_former_outage_ends_no_other(ports: Ports) -> None:
    checked(failing(ports, Fault.REFUSE), 3)
    late = _found(ports)
    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)

    assert _leave(ports, late) == ALREADY_DONE
    assert ports.memory.standing("acme") is Verdict.DEGRADED


def test_what_is_refused_as_an_outage_ends_is_counted_for_the_next(ports: Ports) -> None:
    checked(failing(ports, Fault.REFUSE), 3)
    for n in range(3):
        with pytest.raises(OutageError):
            submit(ports, signal_of(f"s{n}"))
    found = _found(ports)
    health = ports.memory.health(Scope.ALL)
    assert health.refused == {"acme": 3}

    assert _leave(ports, found) == DONE

    ports.memory.count("signals_refused:acme", "documents-unavailable", "b", "acme")
    assert ports.memory.health(Scope.ALL).refused == {"acme": 1}
