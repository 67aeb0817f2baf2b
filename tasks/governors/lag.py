"""How many signals of a tenant wait, as far as that is known now (D25)."""

from governor.errors import OutageError
from governor.scaling.readings import Reading
from governor.times import timestamp
from ports import Ports


def read(ports: Ports, account_id: str) -> Reading:
    """What waits on its topic, and for a worker; unknown where one of both cannot be told.

    A topic that tells only what waited minutes ago is not asked. Of that it is known how many
    messages were refused a place and come again: at least so many wait.
    """
    now, value = timestamp(ports.clock.now()), None
    try:
        rests = ports.signals.lets_rest
        topic = ports.loads.pushed_back(account_id) if rests else ports.signals.backlog(account_id)
        value = topic + ports.dispatch.depth(account_id)
    except OutageError:
        pass
    return Reading(value=value, as_of=now)


def monitored(ports: Ports, account_id: str) -> Reading | None:
    """What the topic's service says, some minutes late: it may raise a limit, and nothing else."""
    if not ports.signals.lets_rest:
        return None
    try:
        value, as_of = ports.signals.backlog_then(account_id)
    except OutageError:
        return None
    return Reading(value=value, as_of=timestamp(as_of), source="monitoring")
