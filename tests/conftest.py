import os
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from adapters.local.system import free_ports
from cli.stack.valkey import valkey_binary
from tests.support.google import started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("embedded", "google"),
        default="embedded",
        help="the stores of engine tests that do not name theirs",
    )
    parser.addoption(
        "--pictures", metavar="FOLDER", help="make the pictures of the docs anew, into this folder"
    )
    parser.addoption(
        "--thorough",
        action="store_true",
        help="everything: what is marked nightly, every write on emulators, more examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    # No example has a deadline: a busy machine is no fault, and bench/ measures.
    settings.register_profile("quick", deadline=None)
    settings.register_profile("thorough", deadline=None, max_examples=500)
    settings.load_profile("thorough" if config.getoption("--thorough") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thorough"):
        spared = [item for item in items if _is_for_the_thorough(item)]
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if item not in set(spared)]
    for item in items:
        if any(name in item.name for name in ("firestore", "pubsub", "gcs", "google")):
            item.add_marker(pytest.mark.live)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged is handed from process to process, which only takes what UTF-8 can say."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def _is_for_the_thorough(item: pytest.Item) -> bool:
    """Whether a case is left to ``make nightly``.

    A write is broken in every way on the embedded stores. The faults are injected above the
    adapter, so on emulators, where a case costs half a second, one write in four is enough,
    lost and landed by turns.
    """
    if item.get_closest_marker("nightly"):
        return True
    cases: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    if cases.get("backend") != "google":
        return False
    if "first_at" in cases:
        return cases["first_at"] != 9 or cases["second_at"] != 3
    if "fault" in cases and isinstance(at := cases.get("at"), int):
        turn, rest = divmod(at + ("killed" in item.name), 4)
        return rest != 0 or cases["fault"] != ("lost" if turn % 2 else "landed")
    return False


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
            [
                valkey_binary(),
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--dir",
                str(self._folder),
            ],
            stdout=subprocess.DEVNULL,
        )
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
