"""``ggen demo`` tells the whole story and leaves nothing behind."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.google import emulator

DEMO = [sys.executable, "-m", "cli.main", "demo"]


@pytest.mark.parametrize(
    "stores", ["embedded", pytest.param("emulated", marks=pytest.mark.nightly)]
)
def test_the_demo_tells_every_receipt_and_leaves_no_process(tmp_path: Path, stores: str) -> None:
    command = DEMO
    if stores == "emulated":
        for name in ("firestore", "pubsub", "storage"):
            emulator(name)  # skips where it is missing
        command = [sys.executable, "-m", "cli.stack.emulators", *DEMO]
    told = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        check=False,
    )

    assert told.returncode == 0, told.stderr
    operations = Counter(json.loads(line)["operation"] for line in told.stdout.splitlines())
    assert operations == {
        "entitlement_active": 1,
        "action_complete": 1,
        "action_timeout": 1,
        "action_failed": 2,
        "action_rolled_back": 2,
        "alert_raised": 1,
        "webhook_rejected": 1,
        "entitlement_failed": 1,
    }
    assert "10 receipts, each valid" in told.stderr
    assert list(tmp_path.iterdir()) == []
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == []
