"""How many signals of a tenant wait, as far as that is known now (D25)."""

from governor.errors import OutageError
from governor.fsm import ActionState
from governor.scaling import Reading
from governor.times import timestamp
from ports import Ports
from ports.documents import Where


def read(ports: Ports, account_id: str) -> Reading:
    """What waits on its topic, and for a worker; unknown where one of both cannot be told.

    A topic whose messages rest after a push gives a reading of minutes ago, which is unknown, too.
    """
    now, value = timestamp(ports.clock.now()), None
    try:
        if not ports.signals.lets_rest:
            value = ports.signals.backlog(account_id) + _queued(ports, account_id)
    except OutageError:
        pass
    return Reading(value=value, as_of=now)


def _queued(ports: Ports, account_id: str) -> int:
    pending = [Where("state", "==", ActionState.PENDING.value)]
    return ports.documents.count(f"tenants/{account_id}/actions", pending)
