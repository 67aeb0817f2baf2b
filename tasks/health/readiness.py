"""Whether the system does work now, and which parts it lacks: read from the stores."""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from governor.errors import GovernorError, public_detail
from governor.health import Scope, silence
from ports import Ports
from ports.health import Trouble

COMPONENTS = ("actions", "runbooks", "health", "beat", "pump")
_WORDS = {
    "actions": "no actions worker has carried out a canary lately",
    "runbooks": "no runbooks worker has carried out a canary lately",
    "health": "no health check has been carried out lately",
    "beat": "beat has not fired lately",
    "pump": "the signal pump has not polled lately",
}

_HEARD_OF_S = 30.0


def look(
    ports: Ports, *, has_pump: bool, signs: bool = True
) -> tuple[dict[str, str], dict[str, Any]]:
    """The missing parts, each with the reason, and what Memory knows of the system's health.

    ``signs``: whether this machine is to have the keys, as those have that run the programs.
    """
    needed = [each for each in COMPONENTS if each != "pump" or has_pump]
    missing: dict[str, str] = {}
    health: dict[str, Any] = {"mode": "unknown"}
    if fault := fault_of(lambda: ports.documents.get("health/probe")):
        missing["documents"] = fault
    if signs and (fault := fault_of(ports.keys.signer)):
        missing["keys"] = fault
    try:
        health = _health(ports)
        if health["mode"] == "degraded":
            missing["mode"] = (
                f"degraded since {health['since']}, {health['error_code']}: all that is new is "
                f"refused until the store is back, by itself"
            )
        elif health["mode"] == "refusing":
            why = health["error_code"] or _silence(ports)
            missing["lease"] = f"all that is new is refused until a health check succeeds: {why}"
        alive = ports.watches.alive(needed)
        missing |= {name: _WORDS[name] for name, is_alive in alive.items() if not is_alive}
        known = ports.troubles.troubles()
        missing |= {trouble.name: _public(trouble) for trouble in known if trouble.blocks}
        health["troubles"] = [
            {"name": t.name, "detail": _public(t), "since_s": round(t.since_s), "count": t.count}
            for t in known
        ]
    except GovernorError as error:
        missing["memory"] = f"{error.detail}: all that is new is refused"
    return missing, health


def _public(trouble: Trouble) -> str:
    """A trouble as anybody may read it: no place on the server."""
    if trouble.name.startswith("policy-unusable/"):
        return "a policy in force cannot be used; ggen policy list and the log say why"
    return trouble.detail


def _silence(ports: Ports) -> str:
    """Why no check lengthened the lease, although none has failed."""
    checked, beat, ingress = ports.watches.seen(["health", "beat", "ingress"]).values()
    if checked is None:
        return "none has been carried out yet"
    return silence(
        checked_ago_s=checked.ago_s,
        beat_seen_for_s=beat.streak_s if beat else 0,
        memory_seen_for_s=ingress.streak_s if ingress else 0,
        worker_up_s=inf,
    ).words


def _health(ports: Ports) -> dict[str, Any]:
    everybody, some = ports.modes.health(Scope.ALL), ports.modes.health(Scope.SOME)
    lease_s = ports.lease.lease_left_s()
    known = everybody if everybody.is_degraded or everybody.failures else some
    mode = "degraded" if everybody.is_degraded else "normal" if lease_s > 0 else "refusing"
    drill, unsent = ports.modes.drill(), ports.outbox.undelivered(1000)
    return {
        "mode": mode,
        "lease_s": round(lease_s, 1),
        "failed_checks": everybody.failures,
        "error_code": known.error_code,
        "since": known.failing_since,
        "refused": sum(everybody.refused.values()),
        "spooled": ports.modes.spooled(),
        "degraded_tenants": len(some.outage.accounts) if some.outage and some.is_degraded else 0,
        "drill": drill.fault if drill else "",
        "undelivered_alerts": len(unsent),
        "alert_fault": unsent[0].fault if unsent else "",
    }


def heard(ports: Ports) -> dict[str, Any]:
    """How many processes of each program were heard of lately, wherever they run.

    Raises:
        OutageError: Memory does not answer.
    """
    found = [each for each in ports.broadcasts.answers() if each.ago_s < _HEARD_OF_S]
    seen = ports.watches.seen(["beat"])["beat"]
    return {
        "programs": dict(sorted(Counter(each.role for each in found).items())),
        "children": sum(each.children for each in found if each.role == "actions"),
        "beat_ago_s": round(seen.ago_s, 1) if seen else None,
    }


def fault_of(look: Callable[[], object]) -> str:
    """Why something fails, as anybody may read it; empty where it does not."""
    try:
        look()
    except GovernorError as error:
        return public_detail(error)
    return ""
