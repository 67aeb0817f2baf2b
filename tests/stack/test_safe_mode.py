"""Outages of a whole stack under load, with all intervals divided by ten; who is silent is noticed."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import psutil
import pytest

from bench.chaos.soak import LOCKED, TENTH, Soak
from bench.load import Load
from bench.stack import Driver, stack
from cli.stack.supervisor import processes
from config.settings import environment
from governor.health import Fault, Silence
from ledger.receipt import SignedReceipt
from ports.documents import Query, Where
from tests.support.waiting import until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with stack(**TENTH) as running, running.http:
        yield running


@pytest.fixture(scope="module")
def soak(driver: Driver) -> Soak:
    return Soak(driver)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        pytest.param(1, Fault.HANG, marks=pytest.mark.nightly),
        pytest.param(2, Fault.GARBAGE, marks=pytest.mark.nightly),
        (3, LOCKED),
        (4, Fault.RANDOM),
    ],
)
def test_an_outage_is_noticed_refused_healed_and_accounted_for(
    soak: Soak, number: int, fault: str
) -> None:
    done = soak.trial(fault, number)

    assert not done.faults
    assert done.refused
    assert done.accepted


def test_every_refusal_any_client_saw_is_receipted(soak: Soak) -> None:
    assert soak.loads
    assert not soak.refusals_are_receipted()


@contextlib.contextmanager
def silenced(driver: Driver, program: str) -> Iterator[None]:
    """A program's processes are there, and do nothing."""
    main = processes(driver.settings)[program]
    family = [main, *main.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.parametrize(
    ("program", "code", "silence"),
    [
        ("beat", "no-lease", Silence.BEAT),
        ("health", "no-lease", Silence.CHECKER),
        ("valkey", "memory-unavailable", Silence.MEMORY),
    ],
)
def test_whoever_falls_silent_has_everything_refused_and_is_named_afterwards(
    driver: Driver, soak: Soak, program: str, code: str, silence: Silence
) -> None:
    account_id = f"silent-{program}"
    until(soak._is_well)
    driver.subscribe(account_id)
    with Load(driver.settings, account_id, per_s=10, clients=2) as load:
        until(lambda: load.statuses()[202])
        with silenced(driver, program):
            began = time.monotonic()
            until(lambda: any(a.code == code for a in load.answers), TENTH["lease_s"] + 3)
            noticed_s = time.monotonic() - began
            until(lambda: time.monotonic() - began > 1.5 * TENTH["lease_s"])
            if program != "valkey":
                missing = driver.http.get("/readyz").json()["missing"]
                assert missing["lease"].endswith(silence.words)
        until(soak._is_well)
    assert noticed_s <= TENTH["lease_s"] + 1  # asked ten times a second, answered within a second

    def told() -> list[str]:
        found = soak.ports.documents.scan(
            Query(
                "tenants/_system/receipts",
                order_by="timestamp",
                descending=True,
                where=[Where("operation", "==", "degraded_mode_cleared")],
                limit=1,
            )
        )
        return [SignedReceipt.stored(d.data).fields()["reason"] for d in found]

    until(lambda: told() == [silence])
    until(lambda: not soak.refusals_are_receipted())
    ids = load.settled()
    until(
        lambda: all(
            driver.read(f"/v1/tenants/{account_id}/actions/{i}")["ended_at"] for i in ids.values()
        )
    )


def test_a_drill_is_told_as_it_goes_and_judged(driver: Driver, soak: Soak) -> None:
    until(soak._is_well)
    driver.subscribe("drilled")
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "drill",
        "degrade",
        "--for",
        "5s",
        "--json",
        "--tenant",
        "drilled",
    ]
    done = subprocess.run(
        command, env=environment(driver.settings), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cleared"]["drill"] is True
    assert told["degraded"]["affected_tenants"] == ["drilled"]
    assert "degraded: all that is new is refused" in done.stderr
    copies = driver.read("/v1/tenants/drilled/receipts")["items"]
    assert {"degraded_mode", "degraded_mode_cleared"} <= {r["operation"] for r in copies}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for", "1s"], "which is how long it may take to be noticed"),
        (["--for", "soon"], "number of seconds"),
        (["--for", "10s", "--tenant", "nobody"], "there is no tenant"),
        (["--for", "10s", "--tenant", "../x"], "is no document path"),
    ],
)
def test_a_drill_that_cannot_be_is_refused(
    driver: Driver, soak: Soak, arguments: list[str], words: str
) -> None:
    until(soak._is_well)
    command = [sys.executable, "-m", "cli.main", "drill", "degrade", *arguments]
    done = subprocess.run(
        command, env=environment(driver.settings), capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert words in done.stderr


def test_the_status_is_watched_as_it_changes(driver: Driver, soak: Soak) -> None:
    until(soak._is_well)
    watching = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "status", "--watch", "--json"],
        env=environment(driver.settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout
        assert json.loads(watching.stdout.readline())["mode"] == "normal"
        with soak.failing(Fault.REFUSE):  # each check that fails is a change, and a line
            while json.loads(watching.stdout.readline())["mode"] != "degraded":
                pass
    finally:
        watching.terminate()
        watching.wait()
        if watching.stdout:
            watching.stdout.close()
    until(soak._is_well)


def test_the_screen_fits_the_terminal_and_ctrl_c_ends_it(driver: Driver, soak: Soak) -> None:
    until(soak._is_well)
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    watching = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "status", "--watch"],
        env={**environment(driver.settings), "TERM": "xterm"},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        # A shell has its background jobs ignore it, and this test may be part of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    os.close(inside)
    shown = b""
    try:
        while b"ledgers" not in shown:
            shown += os.read(terminal, 4096)
        watching.send_signal(signal.SIGINT)
        while piece := _read(terminal):
            shown += piece
    finally:
        watching.kill()
        watching.wait()
        os.close(terminal)

    drawn = re.split(r"[\r\n]+|\x1b\[[0-9;]*[HA]", shown.decode())  # or the cursor moved
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in drawn]
    assert max(map(len, lines)) <= 80
    assert watching.returncode == 0
    assert b"Traceback" not in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # its other end is closed
        return b""


def test_a_webhook_is_refused_while_degraded_and_served_afterwards(
    driver: Driver, soak: Soak
) -> None:
    until(soak._is_well)
    event = driver.webhook_request(driver.event("refused-webhook"))
    with soak.failing(Fault.QUOTA):
        until(lambda: soak.ports.memory.health(scope="all").is_degraded)  # type: ignore[arg-type]
        refused = driver.http.send(event)
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:ggen:problem:degraded"
        assert refused.headers["Retry-After"]
        assert driver.http.get("/readyz").json()["mode"] == "degraded"
        assert "ggen_degraded 1.0" in driver.http.get("/metrics").text

    until(soak._is_well)
    assert driver.http.send(event).status_code == 200
