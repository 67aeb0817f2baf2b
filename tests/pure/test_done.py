"""``docs/definition-of-done.md`` names a test for each line of each runbook, and each is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "definition-of-done.md").read_text()
ROWS = re.findall(r"^\| (?!line|---)(.+?) \| `(.+?)` \|$", PAGE, re.MULTILINE)
RUNBOOKS, LINES = 7, 12


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def test_each_of_twelve_lines_of_seven_runbooks_has_a_test() -> None:
    assert len(ROWS) == RUNBOOKS * LINES
    assert len({line for line, _ in ROWS}) == LINES


def test_each_test_that_is_named_is_there() -> None:
    for _, node in ROWS:
        file, _, name = node.partition("::")
        assert name in names_in(ROOT / file), node


def test_each_runbook_has_its_page_and_its_incident() -> None:
    incidents = (ROOT / "docs" / "incidents.md").read_text()

    for number in range(1, RUNBOOKS + 1):
        assert f"## Incident {number}: " in incidents
        (page,) = re.findall(rf"## Runbook {number}: .+\n\n\[(runbooks/.+?)\]", PAGE)
        assert (ROOT / "docs" / page).read_text().startswith(f"# Runbook {number}: ")
