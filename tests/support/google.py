"""Google's emulators for tests: those of the environment, else started from what is installed."""

import os
from collections.abc import Iterator
from secrets import token_hex

import httpx
import pytest

from cli.stack import emulators
from governor.errors import OutageError
from tests.support import live


def started(name: str) -> Iterator[str]:
    """Where an emulator answers. What is missing skips at a desk, and fails in CI."""
    if live.PROJECT:
        yield ""  # no emulator: Google
        return
    if given := os.environ.get(f"{name.upper()}_EMULATOR_HOST"):
        yield given
        return
    with emulator(name) as running:
        yield running.host


def emulator(name: str) -> emulators.Emulator:
    """An emulator of the test's own, not started yet."""
    try:
        return emulators.Emulator(name)
    except OutageError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def new_bucket(url: str) -> str:
    """A bucket of its own on a Cloud Storage emulator, or on the real one."""
    if live.PROJECT:
        return live.new_bucket()
    name = f"b-{token_hex(6)}"
    made = httpx.post(f"{url}/storage/v1/b", json={"name": name}, timeout=5, trust_env=False)
    made.raise_for_status()
    return name
