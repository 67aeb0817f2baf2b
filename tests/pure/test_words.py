"""Plain words: what docstrings, comments and pages say, counted (see CONTRIBUTING.md)."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "adapters",
    "bench",
    "cli",
    "config",
    "ggen_governor",
    "governor",
    "ingress",
    "ledger",
    "ports",
    "tasks",
)
RARE = ("nobody", "told", "whoever", "somebody", "anew", "what is", "stands", "as ever", "for good")
"""Words that hide the subject of a sentence; each at most once in 10,000 words."""


def _python(text: str) -> Iterator[str]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        constant = node.value if isinstance(node, ast.Expr) else None
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            yield constant.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _prose() -> str:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    parts = [page.read_text() for page in pages]
    for folder in FOLDERS:
        for module in (ROOT / folder).rglob("*.py"):
            parts += _python(module.read_text())
    return "\n".join(parts).lower()


@pytest.fixture(scope="module")
def said() -> tuple[Counter[str], int]:
    prose = re.sub(r"\s+", " ", _prose())
    found = Counter({phrase: len(re.findall(rf"\b{phrase}\b", prose)) for phrase in RARE})
    return found, len(prose.split())


@pytest.mark.parametrize("phrase", RARE)
def test_a_word_that_hides_its_subject_is_rare(said: tuple[Counter[str], int], phrase: str) -> None:
    found, words = said

    assert found[phrase] / words * 10_000 <= 1


def test_every_decision_that_is_cited_is_written_down() -> None:
    page = (ROOT / "docs" / "spec" / "decisions.md").read_text()
    cited = set(re.findall(r"\bD[1-9][0-9]?\b", _prose()))

    assert cited == {f"D{n}" for n in range(1, 32)} & cited
    assert not [each for each in cited if f"**{each}**" not in page]
