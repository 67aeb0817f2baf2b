"""``docs/threat-model.md`` names a test for each threat, and each is there."""

import re
from pathlib import Path

import pytest

from tests.pure.test_done import names_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text().split("## Threats")[1]
ROWS = re.findall(r"^\| (?!threat \||---)(.+?) \| .+ \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_threat_has_a_row() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("threat", "node"), ROWS, ids=lambda value: value[:40])
def test_the_test_of_a_threat_is_there(threat: str, node: str) -> None:
    file, _, name = node.strip("`").partition("::")

    assert (ROOT / file).is_file(), node
    assert not name or name in names_in(ROOT / file)
