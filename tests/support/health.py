"""Checks played by a test: it takes the part of both workers' processes, and of the broker."""

from ports import Ports
from tasks.health import check, modes
from tasks.health.check import Transition


def keep_lease(ports: Ports) -> None:
    """What the ticks of the health check and of the recovery probe bring about."""
    carry_out(ports, check.check_health(ports) or check.probe_recovery(ports))


def watch_drilled(ports: Ports) -> None:
    """The same for the tenants of a drill."""
    carry_out(ports, check.watch_drilled(ports))


def carry_out(ports: Ports, found: Transition | None) -> None:
    """The task that a check has sent."""
    if found and found.kind == "enter":
        modes.enter(ports, found.scope, found.began, found.drill)
    elif found:
        modes.leave(ports, found.scope, found.began)
