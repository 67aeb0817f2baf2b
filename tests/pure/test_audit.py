"""An audit that could not look a package up never passes; and no secret lies in the repository."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.audit import CLEAN, NOT_AUDITED, VULNERABLE, verdict

ROOT = Path(__file__).parents[2]
CLEAN_ONE = {"name": "amqp", "version": "5.4.2", "vulns": []}
SKIPPED = {"name": "kombu", "skip_reason": "Dependency not found on PyPI and could not be audited"}
BAD = {
    "name": "urllib3",
    "version": "1.26.4",
    "vulns": [{"id": "PYSEC-2021-108", "fix_versions": ["1.26.5"]}],
}
_KNOWN = r"^tests/fixtures/|^requirements.*\.lock$"
_NAMES = re.compile(r"(^|/)(secrets|keys)/|\.(pem|key|token|p12|pfx)$|(^|/)\.env$")


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN_ONE], CLEAN, ""),
        ([CLEAN_ONE, SKIPPED], NOT_AUDITED, "could not be audited: kombu"),
        ([SKIPPED] * 9, NOT_AUDITED, "and 4 more"),
        ([CLEAN_ONE, BAD, SKIPPED], VULNERABLE, "PYSEC-2021-108, mended in 1.26.5"),
        ([], NOT_AUDITED, "names no package"),
    ],
)
def test_what_was_not_looked_up_is_no_pass(packages: Any, code: int, words: str) -> None:
    found, lines = verdict(json.dumps({"dependencies": packages, "fixes": []}))

    assert found == code
    assert words in "\n".join(lines)


@pytest.mark.parametrize("output", ["", "Traceback …", "[]", "{}"])
def test_a_service_that_does_not_answer_is_no_pass(output: str) -> None:
    assert verdict(output)[0] == NOT_AUDITED


def _tracked() -> list[str]:
    told = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if told.returncode:
        pytest.skip("no git repository here")
    return told.stdout.splitlines()


def test_no_file_is_tracked_that_has_the_name_of_a_secret() -> None:
    assert [name for name in _tracked() if _NAMES.search(name)] == []


def _scan(folder: Path, *names: str) -> set[str]:
    scan = [sys.executable, "-m", "detect_secrets", "scan", "-n"]
    passed = ["--exclude-files", _KNOWN, "--exclude-lines", r"@example\.com|:PASSWORD@"]
    told = subprocess.run(
        [*scan, *passed, *names], cwd=folder, capture_output=True, text=True, check=True
    )
    results = json.loads(told.stdout)["results"]
    return {
        f"{n}:{hit['line_number']}: {hit['type']}" for n, hits in results.items() for hit in hits
    }


def test_no_tracked_file_has_what_looks_like_a_secret() -> None:
    """A line that only looks like one says so: ``pragma: allowlist secret``."""
    assert _scan(ROOT, *_tracked()) == set()


def test_a_planted_secret_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text('aws_key = "AKIA' + "Z7K2QW4E5R6T7Y8U" + '"\n')

    assert _scan(tmp_path, "config.py") == {"config.py:1: AWS Access Key"}
