"""Every metric, once. None is labelled by tenant: ``/metrics`` needs no token."""

from prometheus_client import Counter, Gauge

WEBHOOKS = Counter("ggen_webhooks", "Webhooks answered, by outcome", ["outcome"])
SIGNALS = Counter("ggen_signals", "Signals answered: accepted, or why not", ["verdict"])
LEASE_S = Gauge("ggen_lease_seconds", "How long the lease to admit still lasts; 0 refuses all")
ORPHANS = Gauge(
    "ggen_orphaned_actions", "Overdue actions that only the minute's scan found; alert if not 0"
)
UNSEALED = Gauge("ggen_unsealed_ledgers", "Ledgers with receipts that wait to be sealed")
DEGRADED = Gauge("ggen_degraded", "1 while all that is new is refused, the store having failed")
SPOOLED = Gauge("ggen_spooled_commits", "Commits that wait in the spool for the store to be back")
UNDELIVERED = Gauge(
    "ggen_undelivered_alerts", "Alerts that were tried in vain, and are tried again"
)
READY = Gauge("ggen_ready", "1 when nothing that /readyz looks at is missing")
WAITING = Gauge("ggen_waiting_actions", "Accepted actions that wait for a worker")
BUSY = Gauge("ggen_busy_processes", "Processes that carry out an action now")
OLDEST_S = Gauge("ggen_waiting_oldest_seconds", "Age of the oldest action that waits")
LONGEST = Gauge(
    "ggen_waiting_actions_longest",
    "Actions that wait in the longest lists, by rank from 1",
    ["rank"],
)
LONGEST_LISTS = 20
