"""Checks played by a test: it takes the part of both workers' processes, and of the broker."""

import dataclasses

from adapters.drilled import DrilledDocuments, Switch
from governor.health import Drill, Fault
from ports import Ports
from tasks.health import check, modes
from tasks.health.check import Transition
from tests.support.waiting import until


def keep_lease(ports: Ports) -> None:
    """What the ticks of the health check and of the recovery probe bring about."""
    carry_out(ports, check.check_health(ports) or check.probe_recovery(ports))


def watch_drilled(ports: Ports) -> None:
    """The same for the tenants of a drill."""
    carry_out(ports, check.watch_drilled(ports))


def carry_out(ports: Ports, found: Transition | None) -> None:
    """The task that a check has sent."""
    if found and found.kind == "enter":
        modes.enter(ports, found.scope, found.began, found.of, found.drill)
    elif found:
        modes.leave(ports, found.scope, found.began, found.of)


def failing(ports: Ports, fault: Fault, *accounts: str) -> Ports:
    """Ports whose Documents fail like this."""
    drill = Drill(drill_id="d", fault=fault, accounts=list(accounts))
    documents = DrilledDocuments(ports.documents, Switch(lambda: drill, 60), 0.2)
    return dataclasses.replace(ports, documents=documents)


def timed(ports: Ports, **changes: float) -> Ports:
    """The same ports with other times."""
    return dataclasses.replace(ports, times=dataclasses.replace(ports.times, **changes))


def checked(ports: Ports, times: int = 1) -> None:
    """So many checks are carried out."""
    for _ in range(times):
        until(lambda: is_due(ports))
        keep_lease(ports)


def is_due(ports: Ports) -> bool:
    """Both ticks are free: whichever the next check needs."""
    free = [ports.memory.claim_tick(name, 60) for name in ("health", "probe")]
    for name, was_free in zip(("health", "probe"), free, strict=True):
        if was_free:
            ports.memory.drop_tick(name)
    return all(free)
