"""What every sweep needs: to be alone, to stop in time, to pass over what it cannot deal with."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from governor.errors import OutageError, UnreadableError
from ports import Ports

_LOG = logging.getLogger("ggen.reaper")
T = TypeVar("T")


@contextlib.contextmanager
def alone(ports: Ports, name: str, for_s: float) -> Iterator[bool]:
    """Whether this process is the only one at it, for ``for_s`` at the most.

    Who hangs for longer keeps the others away no more, and does not send them away afterwards.
    """
    if not ports.watches.claim_tick(name, for_s):
        yield False
        return
    began_s = ports.clock.monotonic_s()
    try:
        yield True
    finally:
        if ports.clock.monotonic_s() - began_s < for_s:
            ports.watches.drop_tick(name)


def for_a_while(ports: Ports, items: Iterable[T], seconds: float) -> Iterator[T]:
    """The items, as long as there is time; the next sweep goes on with the rest."""
    give_up_at_s = ports.clock.monotonic_s() + seconds
    for item in items:
        if ports.clock.monotonic_s() > give_up_at_s:
            return
        yield item


@contextlib.contextmanager
def isolating_errors(what: str) -> Iterator[None]:
    """Keep one poisoned record from shielding all the others; an outage ends the sweep."""
    try:
        yield
    except UnreadableError as error:
        _LOG.error("a sweep cannot deal with %s: %s", what, error)
    except OutageError:
        raise
    except Exception:
        _LOG.exception("a sweep could not deal with %s", what)
