"""Memory that was lost, rebuilt from Documents before anything is admitted."""

import dataclasses

import pytest
import redis

from governor import paths
from governor.errors import OutageError
from governor.quota import month_of
from ports import Ports
from ports.documents import Update
from tasks import ticks
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.health import rebuild
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.actions import action_of, counted, in_flight, signal_of
from tests.support.runs import subscribe


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def test_a_wiped_memory_is_rebuilt_before_anything_is_admitted(
    ports: Ports, valkey: Valkey
) -> None:
    done, waiting = submit(ports, signal_of("done")), submit(ports, signal_of("waits"))
    execute(ports, "acme", done)
    redis.Redis.from_url(valkey.url).flushdb()
    with pytest.raises(OutageError):
        submit(ports, signal_of("refused"))

    rebuild.rebuild(ports, 33)

    month = action_of(ports, waiting).month
    assert ports.memory.used("acme", "demo-sku", month) == 2
    assert in_flight(ports) == 1
    ticks.look(ports)  # a restored slot is looked at first, and kept: its action is pending
    assert in_flight(ports) == 1
    assert submit(ports, signal_of("waits")) == waiting
    execute(ports, "acme", waiting)
    assert in_flight(ports) == 0


def test_memory_that_is_lost_while_it_is_rebuilt_admits_nothing(
    ports: Ports, valkey: Valkey
) -> None:
    memory = redis.Redis.from_url(valkey.url)
    submit(ports, signal_of("s"))
    memory.flushdb()
    era = ports.memory.begin_rebuild(60)
    assert era
    memory.flushdb()

    with pytest.raises(OutageError) as lost:
        rebuild.restore_memory(ports, era)

    assert lost.value.code == "memory-lost"
    assert ports.memory.lease_left_s() == 0
    rebuild.rebuild(ports, 33)
    assert in_flight(ports) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_a_rebuild_counts_each_entitlement_and_what_release_0_1_0_stored(
    ports: Ports, valkey: Valkey, others: int
) -> None:
    for number in range(others):
        bought = {"event_id": f"e-{number}", "entitlement_id": f"seats-{number}"}
        subscribe(ports, event(**bought))
        submit(ports, dataclasses.replace(signal_of("theirs"), entitlement_id=f"seats-{number}"))
    own = dataclasses.replace(signal_of("own"), entitlement_id="demo-sku")
    older = dataclasses.replace(signal_of("older"), entitlement_id="demo-sku")
    submit(ports, own)
    stored = ports.documents.get(paths.action_path("acme", submit(ports, older)))
    assert stored
    unnamed = {k: v for k, v in stored.data.items() if k != "entitlement_id"}
    ports.documents.commit([Update(stored.path, unnamed, stored.revision)])
    redis.Redis.from_url(valkey.url).flushdb()

    rebuild.rebuild(ports, 33)

    month = month_of(ports.clock.now())
    assert ports.memory.used("acme", "demo-sku", month) == 2
    assert [ports.memory.used("acme", f"seats-{n}", month) for n in range(others)] == [1] * others
    assert counted(ports) == (2, 2)
