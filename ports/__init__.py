"""What we ask of the world: Protocols whose docstrings are promises.

``Ports`` is one open connection to each; it is passed as a value and never looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ports.alerts import Alerts, Outbox
from ports.broadcasts import Broadcasts
from ports.calls import Calls
from ports.dispatch import Dispatch
from ports.documents import Documents
from ports.health import Lease, Modes, Troubles, Watches
from ports.keys import Keys
from ports.loads import Loads
from ports.measures import Measures
from ports.memory import Announcements, Governors, Memory, Tallies, Unsealed
from ports.objects import Objects
from ports.pushers import Pushers
from ports.secrets import Secrets
from ports.signals import Signals
from ports.slots import Slots
from ports.system import Clock, Processes
from ports.traces import Traces, Untraced


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may last, in seconds unless named, and how often checks are made.

    An operator's choice.
    """

    store_timeout_s: float = 1.0
    health_interval_s: float = 10.0
    probe_interval_s: float = 2.0
    lease_s: float = 33.0
    run_queue_timeout_s: float = 900.0
    run_deadline_s: float = 60.0
    webhook_wait_s: float = 5.0
    retention_days: int = 400


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a runbook may touch.

    ``spool`` and ``archives`` may lie with ``objects``, or apart.
    One adapter is behind all of ``memory``. Code names the part it needs: ``ports.lease``.
    ``store_name`` is the kind of store behind ``documents``, as receipts name it. A policy must be
    signed by one of ``policy_keys`` (verifier keys), where there are any.
    """

    documents: Documents
    objects: Objects
    spool: Objects
    archives: Objects
    signals: Signals
    memory: Memory
    secrets: Secrets
    keys: Keys
    alerts: Alerts
    clock: Clock
    processes: Processes
    pushers: Pushers
    calls: Calls
    traces: Traces = field(default_factory=Untraced)
    times: Times = field(default_factory=Times)
    store_name: str = "sqlite"
    policy_keys: Sequence[str] = ()

    @property
    def slots(self) -> Slots:
        """Memory's slots: who may act, and who is at it."""
        return self.memory

    @property
    def dispatch(self) -> Dispatch:
        """Memory's lists of actions that wait."""
        return self.memory

    @property
    def governors(self) -> Governors:
        """Memory's copy of each governor, for admission."""
        return self.memory

    @property
    def lease(self) -> Lease:
        """The lease without which nothing is admitted."""
        return self.memory

    @property
    def modes(self) -> Modes:
        """How well the store is, drills, and what was refused."""
        return self.memory

    @property
    def watches(self) -> Watches:
        """Ticks and signs of life."""
        return self.memory

    @property
    def troubles(self) -> Troubles:
        """What waits for the operator."""
        return self.memory

    @property
    def outbox(self) -> Outbox:
        """Alerts on their way."""
        return self.memory

    @property
    def tallies(self) -> Tallies:
        """Refusals, counted."""
        return self.memory

    @property
    def unsealed(self) -> Unsealed:
        """Ledgers that grew."""
        return self.memory

    @property
    def broadcasts(self) -> Broadcasts:
        """Versions in force, announced to every process."""
        return self.memory

    @property
    def loads(self) -> Loads:
        """The load of each entitlement, counted."""
        return self.memory

    @property
    def measures(self) -> Measures:
        """What receipts measure, counted for metrics."""
        return self.memory

    @property
    def announcements(self) -> Announcements:
        """Ends of runs, for who waits."""
        return self.memory
