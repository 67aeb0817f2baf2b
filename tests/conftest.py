import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.stack import free_ports
from cli.embedded import valkey_binary
from tests.google import started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend", choices=("embedded", "google"), default="embedded",
        help="the stores of engine tests that do not name theirs",
    )  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(name in item.name for name in ("firestore", "pubsub", "gcs", "google")):
            item.add_marker(pytest.mark.live)


class Valkey:
    """A real server that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}/1"
        self.broker_url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [valkey_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "yes", "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        client = redis.Redis(port=self.port)
        give_up_at = time.monotonic() + 10
        while True:
            try:
                client.ping()
                client.close()
                return
            except redis.RedisError:
                assert time.monotonic() < give_up_at, "Valkey did not start"
                time.sleep(0.01)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def firestore() -> Iterator[str]:
    yield from started("firestore")


@pytest.fixture(scope="session")
def pubsub() -> Iterator[str]:
    yield from started("pubsub")


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    yield from started("storage")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_desk() -> None:
    for name in [n for n in os.environ if n.upper().startswith("GGEN_")]:
        del os.environ[name]
