"""Where a test's stores are, so that a process of its own can open them anew.

gRPC does not survive a fork once it was used, so such a process is forked from a server that never
used it: what it does is a function of some module, and what it is told can be pickled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adapters.alerts import PostedAlerts
from adapters.calls import GuardedCalls, networks
from adapters.gcp.monitoring import MonitoredLag
from adapters.gcp.pubsub import PubsubSignals, Push
from adapters.gcp.storage import GcsObjects
from adapters.local.clock import SystemClock
from adapters.local.directory import DirectoryObjects
from adapters.local.key_files import KeyFiles
from adapters.local.secret_files import SecretFiles
from adapters.local.sqlite import SqliteDocuments
from adapters.local.system import SystemProcesses
from adapters.pushers import TokenPushers
from adapters.valkey.memory import ValkeyMemory
from adapters.valkey.streams import StreamSignals
from ports import Ports, Times
from tests.support.commands import FORKS
from tests.support.indexes import IndexedDocuments


@dataclass(frozen=True)
class Google:
    """A project and a bucket of one test's own, on emulators."""

    firestore: str
    pubsub: str
    storage: str
    project: str
    bucket: str


@dataclass(frozen=True)
class Stores:
    """The stores of one test; Google's in the place of the embedded ones, where it has some."""

    folder: Path
    valkey_url: str
    google: Google | None = None
    times: Times = field(default_factory=Times)

    def open(self) -> Ports:
        secrets = SecretFiles(self.folder / "secrets")
        secrets.create_missing()
        keys = KeyFiles(self.folder / "keys", "ledger.example")
        keys.create_missing()
        memory = ValkeyMemory(self.valkey_url)
        return Ports(
            **(_on_google(self.google) if self.google else self._embedded()),
            memory=memory,
            secrets=secrets,
            keys=keys,
            alerts=PostedAlerts(secrets, memory),
            clock=SystemClock(),
            processes=SystemProcesses(),
            pushers=TokenPushers(secrets),
            calls=GuardedCalls(networks("127.0.0.0/8")),
            times=self.times,
            store_name="firestore" if self.google else "sqlite",
        )

    def process(self, work: Callable[..., object], *arguments: object) -> BaseProcess:
        """A process, started, that does ``work(ports, *arguments)`` on these stores."""
        child = FORKS.Process(target=_work, args=(self, work, arguments))
        child.start()
        return child

    def _embedded(self) -> dict[str, Any]:
        return {
            "documents": SqliteDocuments(self.folder / "documents.db"),
            "objects": DirectoryObjects(self.folder / "objects"),
            "spool": DirectoryObjects(self.folder / "objects"),
            "archives": DirectoryObjects(self.folder / "objects"),
            "signals": StreamSignals(self.valkey_url),
        }


def _on_google(at: Google) -> dict[str, Any]:
    lag = MonitoredLag(at.project, is_emulated=True)
    push = Push("http://127.0.0.1:1/")
    return {
        "documents": IndexedDocuments(at.project, emulator_host=at.firestore),
        "signals": PubsubSignals(at.project, push, lag, emulator_host=at.pubsub),
        "objects": GcsObjects(at.bucket, emulator_url=at.storage),
        "spool": GcsObjects(at.bucket, emulator_url=at.storage),
        "archives": GcsObjects(at.bucket, emulator_url=at.storage),
    }


def _work(stores: Stores, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    work(stores.open(), *arguments)
