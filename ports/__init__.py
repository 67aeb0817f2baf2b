"""What we ask of the world: Protocols whose docstrings are promises.

``Ports`` is one open connection to each; it is passed as a value and never looked up.
"""

from dataclasses import dataclass

from ports.alerts import Alerts
from ports.documents import Documents
from ports.keys import Keys
from ports.memory import Memory
from ports.objects import Objects
from ports.pushers import Pushers
from ports.secrets import Secrets
from ports.signals import Signals
from ports.system import Clock, Processes


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a runbook may touch. ``spool`` may lie with ``objects``, or apart from them."""

    documents: Documents
    objects: Objects
    spool: Objects
    signals: Signals
    memory: Memory
    secrets: Secrets
    keys: Keys
    alerts: Alerts
    clock: Clock
    processes: Processes
    pushers: Pushers
