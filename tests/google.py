"""Google's emulators for tests: those of the environment, else started from what is installed."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from secrets import token_hex

import httpx
import pytest

from governor.errors import OutageError


def started(variable: str, start: AbstractContextManager[str]) -> Iterator[str]:
    """Where an emulator answers. What is missing skips at a desk, and fails in CI."""
    if given := os.environ.get(variable):
        yield given
        return
    try:
        host = start.__enter__()
    except OutageError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        yield host
    finally:
        start.__exit__(None, None, None)


def new_bucket(url: str) -> str:
    """A bucket of its own on a Cloud Storage emulator."""
    name = f"b-{token_hex(6)}"
    made = httpx.post(f"{url}/storage/v1/b", json={"name": name}, timeout=5, trust_env=False)
    made.raise_for_status()
    return name
