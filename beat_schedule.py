"""When things fire by themselves: one dict, data only.

The settings give the intervals. A worker claims each tick that it carries out, so a second beat
does no harm. ``expires`` drops the ticks that piled up while no worker consumed them.
"""


def entries(
    *, health_interval_s: float, probe_interval_s: float, tally_interval_s: float
) -> dict[str, dict[str, object]]:
    """Beat's entries by name."""
    return {
        "health-check": {
            "task": "degrade_to_safe_mode.check",
            "schedule": 0.95 * health_interval_s,  # a little early: beat's delays would add up
            "args": (True,),
            "options": {"queue": "health", "expires": health_interval_s},
        },
        "recovery-probe": {
            "task": "degrade_to_safe_mode.probe",
            "schedule": 0.95 * probe_interval_s,
            "only_while": "refused",  # nothing to recover from while the system admits
            "options": {"queue": "health", "expires": probe_interval_s},
        },
        "reap": {
            "task": "reap.sweep",
            "schedule": 1.0,
            "options": {"queue": "health", "expires": 1},
        },
        "tally": {
            "task": "tally.receipt",
            "schedule": tally_interval_s,
            "options": {"queue": "ledger", "expires": tally_interval_s},
        },
        "seal": {
            "task": "seal.sweep",
            "schedule": 0.8,  # everything is sealed within a second
            "only_while": "unsealed",
            "options": {"queue": "ledger", "expires": 1},
        },
        "policy-versions": {
            "task": "upgrade_policy.announce",
            "schedule": 10.0,
            "options": {"queue": "ledger", "expires": 10},
        },
        "policy-bake": {
            "task": "upgrade_policy.watch",
            "schedule": 2.0,
            "only_while": "watched",  # a version is in its first minutes
            "options": {"queue": "health", "expires": 2},
        },
        "scaling": {
            "task": "scale_governor.look",
            "schedule": 2.0,
            "only_while": "pressed",  # signals are refused for concurrency, or a limit was raised
            "options": {"queue": "health", "expires": 2},
        },
        "traces": {
            "task": "traces.export",
            "schedule": 2.0,
            "only_while": "traced",  # an operator has named a collector, and something has ended
            "options": {"queue": "ledger", "expires": 2},
        },
        "watch-ledgers": {
            "task": "audit.watch",
            "schedule": 60.0,
            "options": {"queue": "ledger", "expires": 60},
        },
        "retention": {
            "task": "retention.forget",
            "schedule": 3_600.0,  # once a day is enough, and is claimed
            "options": {"queue": "ledger", "expires": 3_600},
        },
        "revive": {
            "task": "revive.dead_letters",
            "schedule": 60.0,
            "options": {"queue": "ledger", "expires": 60},
        },
        "alerts": {
            "task": "deliver_alerts.deliver",
            "schedule": 10.0,
            "options": {"queue": "ledger", "expires": 10},
        },
        "troubles": {
            "task": "troubles.look",
            "schedule": 30.0,
            "options": {"queue": "ledger", "expires": 30},
        },
        "repair": {
            "task": "repair.topics",
            "schedule": 86_400.0,
            "options": {"queue": "ledger", "expires": 3_600},
        },
        "canary-actions": {
            "task": "canary.sing",
            "schedule": health_interval_s,
            "args": ("actions", True),
            "options": {"queue": "actions", "expires": 10},
        },
        "canary-runbooks": {
            "task": "canary.sing",
            "schedule": health_interval_s,
            "args": ("runbooks", True),
            "options": {"queue": "runbooks", "expires": 10},
        },
    }
