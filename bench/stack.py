"""A stack of its own, driven over the outside interface, for measuring."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from adapters.local.system import free_ports
from config.settings import Settings, environment
from governor.errors import DeniedError, OutageError
from ingress.client import Client, checked


class Driver(Client):
    """Posts what a marketplace and a tenant would post; each signal has an id of its own."""

    def __init__(self, settings: Settings, name: str = "bench") -> None:
        super().__init__(settings, timeout_s=30)
        self._name = name
        self._count = itertools.count(1)

    def subscribe(
        self, account_id: str, plan_type: str = "enterprise", sku_id: str = "demo-sku"
    ) -> dict[str, Any]:
        """A webhook, and its receipt."""
        event = self.event(account_id, plan_type, sku_id)
        receipt: dict[str, Any] = checked(self.post_webhook(event)).json()
        return receipt

    def event(
        self, account_id: str, plan_type: str = "enterprise", sku_id: str = "demo-sku"
    ) -> dict[str, str]:
        """A new subscription's event."""
        return {
            "event_type": "entitlement.created",
            "account_id": account_id,
            "sku_id": sku_id,
            "plan_type": plan_type,
        }

    def signal(self, account_id: str, kind: str, payload: dict[str, Any]) -> str:
        """A signal; where its action is to be seen."""
        signal_id = f"{self._name}-{next(self._count)}"
        asked = {"signal_id": signal_id, "type": kind, "payload": payload}
        return checked(self.post_signal(account_id, asked)).headers["Location"]


@contextmanager
def stack(**changes: Any) -> Iterator[Driver]:
    """A stack in a directory of its own, with settings changed; stopped and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ggen-bench-"))
    http, flower, valkey = free_ports(3)
    settings = Settings(
        state_dir=folder, http_port=http, flower_port=flower, valkey_port=valkey, **changes
    )
    with _handlers(folder / "handlers"):
        ggen(settings, "up", "--detach")
        try:
            yield Driver(settings)
        finally:
            ggen(settings, "down")
            shutil.rmtree(folder)


@contextmanager
def _handlers(folder: Path) -> Iterator[None]:
    """Have every process that is started meanwhile find ``bench.handlers`` as installed."""
    info = folder / "ggen_bench-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ggen-bench\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[ggen.actions]\nbench = bench.handlers\n")
    before = os.environ.get("PYTHONPATH")  # noqa: TID251  # no setting of ours
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))  # noqa: TID251
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]  # noqa: TID251
        else:
            os.environ["PYTHONPATH"] = before  # noqa: TID251


@contextmanager
def worker_beside(settings: Settings, module: str, queue: str, children: int) -> Iterator[None]:
    """A Celery worker of its own on the stack's broker, for what ``module`` declares."""
    with (settings.log_dir / f"{queue}-beside.log").open("ab") as log:
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-q",
                "-A",
                module,
                "worker",
                "-Q",
                queue,
                "-c",
                str(children),
                "-n",
                f"{queue}@%h",
                "-l",
                "WARNING",
                "--without-gossip",
                "--without-mingle",
            ],
            env=environment(settings),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def programs(settings: Settings) -> dict[str, psutil.Process]:
    """The supervisor's programs by name, of those that run now."""
    found = dict[str, psutil.Process]()
    for process in _supervisor(settings).children():
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found[process.environ().get("SUPERVISOR_PROCESS_NAME", process.name())] = process
    return found


def family(settings: Settings) -> list[psutil.Process]:
    """The supervisor and everything below it."""
    supervisor = _supervisor(settings)
    return [supervisor, *supervisor.children(recursive=True)]


def _supervisor(settings: Settings) -> psutil.Process:
    return psutil.Process(int((settings.state_dir / "run" / "supervisord.pid").read_text()))


def ggen(
    settings: Settings, *arguments: str, may_be_refused: bool = False, within_s: float = 0
) -> None:
    """Run one command beside a stack; it raises where that fails, and was not merely refused.

    ``within_s``: for how long it is repeated while a store is away, as an operator would.
    """
    command = [sys.executable, "-m", "cli.main", *arguments]
    give_up_at = time.monotonic() + within_s
    while True:
        done = subprocess.run(
            command, env=environment(settings), check=False, capture_output=True, text=True
        )
        if done.returncode != OutageError.exit_code or time.monotonic() > give_up_at:
            break
        time.sleep(1)
    refused = [DeniedError.exit_code, OutageError.exit_code] if may_be_refused else []
    if done.returncode not in [0, *refused]:
        raise RuntimeError(f"ggen {' '.join(arguments)}: {done.returncode}: {done.stderr}")
