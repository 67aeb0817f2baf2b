"""A second host: the programs that a cluster runs, under another name, behind a network of its own.

It has its own process ids, its own host name and its own clock. It reaches the stores that both
share, and Memory, through a relay alone.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from adapters.local.system import free_ports
from adapters.local.waiting import until
from adapters.wiring import broker_url, memory_url
from bench.chaos.clock import WallClock, wall_clock
from bench.chaos.relay import Place, Relay
from config.settings import Settings, environment

_PROGRAMS = ("ingress", "actions", "runbooks", "health", "beat")
_NAME = "other-host"
_SCRIPT = """
hostname "$1"; python=$2; shift 2
for program; do
  while :; do "$python" -P -m ggen_governor.start run "$program"; sleep 0.5; done &
done
wait
"""
"""What the cluster's own supervision does: a program that ends is started again."""

_EMULATORS = ("firestore_emulator_host", "pubsub_emulator_host", "storage_emulator_host")


class OtherHost:
    """The second host of a stack on emulators, for as long as the block lasts.

    ``settings`` are those of its programs; ``clock`` is None where it cannot be set.
    """

    def __init__(self, first: Settings) -> None:
        self._folder = Path(f"{first.state_dir}-{_NAME}")
        places = [_place(getattr(first, name)) for name in _EMULATORS]
        self.relay = Relay([("127.0.0.1", first.valkey_port), *places])
        self._first = first
        self._process: subprocess.Popen[bytes] | None = None
        self.clock: WallClock | None = None

    def __enter__(self) -> Self:
        self.relay.__enter__()
        (self._folder / "log").mkdir(parents=True)
        for shared in ("secrets", "keys", "demo-actions.jsonl"):
            (self._folder / shared).symlink_to(self._first.state_dir / shared)
        self._first.demo_file.touch()
        self.clock = wall_clock(self._folder / "clock")
        self.settings = self._settings()
        prepared = [sys.executable, "-P", "-m", "ggen_governor.start", "prepare"]
        subprocess.run(prepared, env=environment(self.settings), check=True, capture_output=True)
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.relay.__exit__(kind, error, trace)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start its programs, and wait until its ingress answers."""
        unshared = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        with (self._folder / "log" / "host.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*unshared, "sh", "-c", _SCRIPT, "sh", _NAME, sys.executable, *_PROGRAMS],
                env={
                    **environment(self.settings),
                    **(self.clock.environment if self.clock else {}),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(self.answers, 180)
        except TimeoutError as error:
            raise RuntimeError(f"{readiness(self._first)} {readiness(self.settings)}") from error

    def kill(self) -> None:
        """The whole host at once, as a lost machine: every process of it by SIGKILL."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def answers(self) -> bool:
        """Whether its ingress says that it is ready."""
        return is_ready(self.settings)

    def _settings(self) -> Settings:
        memory, *emulators = self.relay.ports
        at = dict(zip(_EMULATORS, (f"127.0.0.1:{port}" for port in emulators), strict=True))
        at["storage_emulator_host"] = f"http://{at['storage_emulator_host']}"
        http, flower = free_ports(2)
        return self._first.model_copy(
            update={
                **at,
                "state_dir": self._folder,
                "http_port": http,
                "flower_port": flower,
                "memory_url": _moved(memory_url(self._first), memory),
                "broker_url": _moved(broker_url(self._first), memory),
            }
        )


def readiness(settings: Settings) -> str:
    """The status and the text with which the ingress of these settings answers for it."""
    try:
        answer = httpx.get(f"{settings.local_url}/readyz", timeout=2, trust_env=False)
    except httpx.HTTPError as error:
        return repr(error)
    return f"{answer.status_code} {answer.text}"


def is_ready(settings: Settings) -> bool:
    """Whether the ingress of these settings says so."""
    return readiness(settings).startswith("200 ")


def can_have_one(settings: Settings) -> bool:
    """Whether a second host can be had: emulators that both reach, and namespaces."""
    if not settings.firestore_emulator_host or shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--pid", "--uts", "--fork", "--mount-proc", "true"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def _place(host: str) -> Place:
    parts = urlsplit(host if "//" in host else f"//{host}")
    return str(parts.hostname), int(parts.port or 0)


def _moved(url: str, port: int) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f":{parts.password}@127.0.0.1:{port}").geturl()
