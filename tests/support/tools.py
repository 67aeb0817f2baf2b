"""Programs that a test needs and a newcomer's machine may lack."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip the test, with the reason; in CI, which has everything, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(f"{what}; CI has it")
