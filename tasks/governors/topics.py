"""Topics made good: the embedded ones lie beside Memory, and are lost with it.

Not part of a rebuild of Memory: a thousand topics take minutes to look at where they are Pub/Sub's.
A topic that cannot be repaired must not keep any tenant from being admitted.
"""

import logging

from governor.errors import GovernorError
from governor.fsm import GOVERNOR_LIVE, GovernorState
from governor.tenancy import Tenant
from ports import Ports
from ports.documents import Query

_LOG = logging.getLogger("ggen.signals")
PATIENCE_S = 10.0
"""How long one message repairs; another goes on, behind whatever else waits."""


def repair(ports: Ports, after: str = "") -> str:
    """Repair for a while; the path of the tenant it came to, empty when all were looked at.

    Raises:
        OutageError: the tenants cannot be listed.
    """
    give_up_at = ports.clock.monotonic_s() + PATIENCE_S
    while page := ports.documents.scan(
        Query("tenants", after=("", after) if after else None, limit=100)
    ):
        for document in page:
            _repair(ports, document.path)
            after = document.path
            if ports.clock.monotonic_s() > give_up_at:
                return after
    return ""


def _repair(ports: Ports, path: str) -> None:
    tenant = _stored(ports, path)
    if tenant is None or tenant.state not in GOVERNOR_LIVE:
        return
    try:
        ports.signals.create(tenant.account_id, tenant.region)
        after = _stored(ports, path)
        if after and after.state is GovernorState.DRAINING:  # its run takes the messages on it
            ports.signals.stop_pushing(tenant.account_id)
        elif after and (after.state, after.fsm_id) == (GovernorState.DECOMMISSIONED, tenant.fsm_id):
            ports.signals.delete(tenant.account_id)
    except GovernorError as error:
        _LOG.warning("the topic of %s is not repaired: %s", tenant.account_id, error)


def _stored(ports: Ports, path: str) -> Tenant | None:
    """A tenant as it is now: the page it was found on may be old."""
    found = ports.documents.get(path)
    return Tenant.stored(found.data) if found else None
