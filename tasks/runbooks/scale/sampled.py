"""Samples of an entitlement's load: taken, and read."""

from governor.scaling.samples import Sample
from governor.tenancy import Entitlement
from governor.times import timestamp
from ports import Ports
from tasks.governors import lag

_MONITORED_EVERY_S = 60.0


def samples_of(ports: Ports, entitlement: Entitlement) -> list[Sample]:
    """Those that are kept, oldest first. Raises OutageError."""
    found: list[Sample] = []
    for text in ports.loads.samples(entitlement.account_id, entitlement.entitlement_id):
        try:
            found.append(Sample.model_validate_json(text))
        except ValueError:  # of another release
            continue
    return found


def taken(ports: Ports, entitlement: Entitlement, known: list[Sample]) -> Sample:
    """A sample of now; what was needed before is taken over from ``known``. Raises OutageError."""
    account_id = entitlement.account_id
    load = ports.loads.load(account_id, entitlement.entitlement_id)
    carried = known[-1].readings if known else ()
    readings = [each for each in carried if each.source == "monitoring"][-1:]
    readings.append(lag.read(ports, account_id))
    if ports.watches.claim_tick(f"monitored-lag/{account_id}", _MONITORED_EVERY_S):
        readings += filter(None, [lag.monitored(ports, account_id)])
    return Sample(
        at=timestamp(ports.clock.now()),
        limit=entitlement.concurrent_actions,
        in_flight=load.in_flight,
        admitted=load.admitted,
        refused=load.refused,
        pushed_back=load.pushed_back,
        ended=load.ended,
        timed_out=load.timed_out,
        held_ms=load.held_ms,
        readings=tuple(readings),
        busy=ports.loads.busy(),
        needs=known[-1].needs if known else (),
    )
