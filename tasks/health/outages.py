"""Record the beginning and the end of an outage, each in one commit with its receipt.

Its beginning is signed while the store is away, so it goes by the spool and lands with the rest.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from governor.errors import ConflictError, OutageError
from governor.health import Drill, Outage, Scope, Silence, outage_id, outage_path, silence
from governor.records import SYSTEM_ACCOUNT
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Query, Update, Where, Write
from ports.health import Health, Seen
from tasks.receipts import spool
from tasks.receipts.commit import alert, commit_once, receipt

_LOG = logging.getLogger("ggen.health")
_TOLD_FOR_S, _TELLING_S = 7 * 24 * 3600, 30


def begun(ports: Ports, scope: Scope, known: Health, drill: Drill | None) -> Outage:
    """The outage that failed checks have shown."""
    now = timestamp(ports.clock.now())
    since = known.failing_since or now
    return Outage(
        outage_id=outage_id(scope, since),
        scope=scope,
        accounts=drill.accounts if drill and scope is Scope.SOME else [],
        reason=f"{ports.store_name}_recovered",
        error_code=known.error_code,
        error_detail=known.error_detail,
        failure_count=known.failures,
        began_at=since,
        degraded_at=now,
        drill=drill is not None,
    )


def lapsed(
    ports: Ports,
    known: Health,
    before: Mapping[str, Seen | None],
    now: datetime,
) -> Outage:
    """The outage that no check saw: the lease ran out, or was lost with Memory (idea 5)."""
    checked, beat, ingress = (before[each] for each in ("health", "beat", "ingress"))
    cause = silence(
        checked_ago_s=checked.ago_s if checked else None,
        beat_seen_for_s=beat.streak_s if beat else 0,
        memory_seen_for_s=ingress.streak_s if ingress else 0,
        worker_up_s=ports.processes.age_s(),
    )
    unseen_s = max(0.0, _renewed_s_ago(known, before) - ports.times.lease_s)
    since = timestamp(now - timedelta(seconds=unseen_s))
    return Outage(
        outage_id=outage_id(Scope.ALL, since),
        reason=f"{ports.store_name}_recovered" if known.failures else cause,
        error_code=known.error_code or "NO_LEASE",
        error_detail=known.error_detail or cause.words,
        failure_count=known.failures,
        began_at=since,
        recovered_at=timestamp(now),
    )


def _renewed_s_ago(known: Health, before: Mapping[str, Seen | None]) -> float:
    """Seconds since the lease was lengthened; 0 where Memory does not know.

    A process of an earlier release notes its checks alone, of which those that succeed do so.
    """
    found = [before["lease"], None if known.failures else before["health"]]
    return min((each.ago_s for each in found if each), default=0.0)


def tell_begun(ports: Ports, outage: Outage, check_began: datetime) -> None:
    """Alert, and spool the commit; where that fails, the next probe tries again."""
    told_as = f"told:{outage.outage_id}"
    if not ports.watches.claim_tick(told_as, _TELLING_S):
        return
    writes, told = _beginning(ports, outage, check_began)
    if ports.watches.claim_tick(f"alerted:{outage.outage_id}", _TOLD_FOR_S):
        ports.alerts.send(told)  # not a moment later: the receipt cannot be committed now
    try:
        spool.put(ports, SYSTEM_ACCOUNT, outage.outage_id, 1, writes)
    except OutageError as error:
        _LOG.error("the outage is not receipted yet, Objects are away too: %s", error)
        ports.watches.drop_tick(told_as)
        return
    ports.watches.drop_tick(told_as)
    ports.watches.claim_tick(told_as, _TOLD_FOR_S)


def tell_real(ports: Ports, outage: Outage, error_code: str, error_detail: str) -> None:
    """A drill is over, and the store fails all the same."""
    raised, told = alert(
        ports,
        "critical",
        "degraded_mode",
        SYSTEM_ACCOUNT,
        f"{outage.outage_id}/real",
        f"the drill is over, but Documents fail in truth ({error_code}: {error_detail})",
    )
    ports.alerts.send(told)
    try:
        spool.put(ports, SYSTEM_ACCOUNT, f"{outage.outage_id}-real", 1, raised)
    except OutageError as error:
        _LOG.error("the alert is not receipted, Objects are away too: %s", error)


def receipt_ended(ports: Ports, scope: Scope, began: datetime) -> None:
    """Receipt every outage that is over, if any is owed; safe to repeat from any point.

    Raises:
        OutageError: some are owed still, and the next check goes on with them.
    """
    owed = ports.modes.owed(scope)
    for each in owed:
        _end(ports, each.outage, each.refused, began)
        ports.modes.receipted(scope, each.outage.outage_id)
    if owed and scope is Scope.ALL:
        _end_forgotten(ports, began)


def _end_forgotten(ports: Ports, began: datetime) -> None:
    """Where Memory was lost during an outage, only Documents still know that it had begun."""
    open_ones = [ports.modes.health(scope).outage for scope in Scope]
    owed = [each.outage for scope in Scope for each in ports.modes.owed(scope)]
    in_memory = {each.outage_id for each in (*open_ones, *owed) if each}
    for found in ports.documents.scan(Query("outages", where=[Where("state", "==", "open")])):
        left = Outage.stored(found.data)
        if left.outage_id not in in_memory:
            now = timestamp(ports.clock.now())
            _end(ports, left.evolve(recovered_at=now), {}, began)


def _end(ports: Ports, outage: Outage, refused: Mapping[str, int], began: datetime) -> None:
    path = outage_path(outage.outage_id)
    found = ports.documents.get(path)
    if found is not None and Outage.stored(found.data).state == "cleared":
        return
    writes: list[Write] = []
    if found is None and outage.degraded_at:  # its beginning was never kept: both stores were away
        beginning, _ = _beginning(ports, outage, instant(outage.degraded_at))
        writes += beginning[1:]
    cleared = outage.evolve(state="cleared")
    total = sum(refused.values())
    proof = _cleared(ports, SYSTEM_ACCOUNT, cleared, total, began)
    raised, told = alert(
        ports,
        "info" if outage.degraded_at else "warning",
        "degraded_mode_cleared",
        SYSTEM_ACCOUNT,
        outage.outage_id,
        f"{'DRILL: ' if outage.drill else ''}everything is served again; nothing was admitted "
        f"since {outage.began_at} ({outage.error_code}: {outage.error_detail}), {total} refused",
        cause_receipt=proof,
        drill=True if outage.drill else None,
    )
    writes += [
        Update(path, cleared.document(), found.revision)
        if found
        else Create(path, cleared.document()),
        proof,
        *(_cleared(ports, each, cleared, refused.get(each, 0), began) for each in outage.accounts),
    ]
    is_news = outage.reason != Silence.STOPPED  # the operator who stopped everything knows
    try:
        commit_once(ports, [*writes, *raised] if is_news else writes)
    except ConflictError as error:
        raise OutageError("outage-moved", f"{path} was moved meanwhile: {error}", 2) from error
    if is_news:
        ports.alerts.send(told)


def _beginning(ports: Ports, outage: Outage, check_began: datetime) -> tuple[list[Write], Alert]:
    """The document of an outage, first, with all that is receipted of its beginning; the alert."""
    proof = _degraded(ports, SYSTEM_ACCOUNT, outage, check_began)
    raised, told = alert(
        ports,
        "critical",
        "degraded_mode",
        SYSTEM_ACCOUNT,
        outage.outage_id,
        f"{'DRILL: ' if outage.drill else ''}Documents fail ({outage.error_code}: "
        f"{outage.error_detail}); everything new is refused until they are back, by itself",
        cause_receipt=proof,
        drill=True if outage.drill else None,
    )
    copies = [_degraded(ports, each, outage, check_began) for each in outage.accounts]
    return [Create(outage_path(outage.outage_id), outage.document()), proof, *raised, *copies], told


def _degraded(ports: Ports, account_id: str, outage: Outage, check_began: datetime) -> Create:
    return receipt(
        ports,
        "degraded_mode",
        account_id,
        outage.outage_id,
        status="degraded",
        duration_ms=elapsed_ms(timestamp(check_began), ports.clock.now()),
        reason=outage.reason.replace("_recovered", "_unavailable"),
        error_code=outage.error_code,
        failure_count=outage.failure_count,
        affected_tenants=outage.affected,
        alert_severity="critical",
        detected_ms=elapsed_ms(outage.began_at, instant(outage.degraded_at or outage.began_at)),
        **_marks(outage),
    )


def _cleared(
    ports: Ports, account_id: str, outage: Outage, refused: int, began: datetime
) -> Create:
    downtime = instant(outage.recovered_at or outage.began_at) - instant(outage.began_at)
    return receipt(
        ports,
        "degraded_mode_cleared",
        account_id,
        outage.outage_id,
        status="recovered",
        duration_ms=elapsed_ms(timestamp(began), ports.clock.now()),
        reason=outage.reason,
        downtime_seconds=round(max(0.0, downtime.total_seconds()), 3),
        actions_refused=refused,
        **_served_again(outage, began),
        **_marks(outage),
    )


def _served_again(outage: Outage, began: datetime) -> dict[str, Any]:
    """What a receipt says of an outage that was noticed, and not only found to have been."""
    if outage.degraded_at is None or outage.recovered_at is None:
        return {}
    recovered_at = instant(outage.recovered_at)
    is_known = began <= recovered_at  # else a later check receipts what an earlier one ended
    recovery_ms = elapsed_ms(timestamp(began), recovered_at) if is_known else None
    return {"actions_accepted": outage.accepted, "recovery_ms": recovery_ms}


def _marks(outage: Outage) -> dict[str, Any]:
    return {"drill": True} if outage.drill else {}
