"""Five hundred worlds hold, a seed plays the same world again, and bugs of the past are found."""

import os
import subprocess
import sys

import pytest

from tests.simulation.bugs import BUGS


def simulate(*words: str) -> "subprocess.CompletedProcess[str]":
    """``make simulate`` in a process of its own: its order of sets must not be by chance."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_five_hundred_worlds_end_well_whatever_fails_in_them() -> None:
    done = simulate("--seeds", "500")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 seeds, 0 failed" in done.stdout


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_of_the_past_is_found_where_it_is_put_back(name: str) -> None:
    seed = str(BUGS[name].seed)

    assert simulate("--seed", seed).returncode == 0
    found = simulate("--seed", seed, "--bug", name)
    assert found.returncode == 1, found.stdout + found.stderr


def test_a_seed_plays_the_same_world_again() -> None:
    first, second = (simulate("--seed", "97").stdout for _ in range(2))

    assert first == second
    assert "kill" in first
