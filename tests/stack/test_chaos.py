"""Random faults on real processes, for half a minute: the short form of ``make chaos``."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_whatever_is_killed_or_held_all_books_agree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos.chaos", "--minutes", "0.5", "--seed", "7"],
        env={name: value for name, value in os.environ.items() if not name.startswith("GGEN_")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["faults"] == []
    assert sum(told["done"].values()) >= 5
    assert told["answers"]["202"] > 100
