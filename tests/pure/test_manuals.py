"""The manuals are what the runbooks declare."""

from pathlib import Path

import pytest

from cli.commands import docs, references
from governor.errors import ConflictError
from ledger.contracts import MODELS

DOCS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_the_rendered_manuals_are_current() -> None:
    assert {p.name: p.read_text() for p in DOCS.glob("*.md")} == docs.pages()


def test_the_references_are_those_of_the_models() -> None:
    assert {p.name: p.read_text() for p in DOCS.parent.glob("reference/*.md")} == references.pages()


def test_every_setting_and_member_of_a_policy_says_what_it_is() -> None:
    for page in references.pages().values():
        assert not [line for line in page.splitlines() if line.endswith("|  |")]


def test_a_stale_page_is_named_and_written(tmp_path: Path) -> None:
    folder = tmp_path / "runbooks"
    assert docs.render(folder, check=False) == [*sorted(docs.pages()), *references.pages()]
    assert docs.render(folder, check=True) == []
    (folder / "deploy-sku.md").write_text("old")

    with pytest.raises(ConflictError, match=r"deploy-sku\.md.*ggen docs"):
        docs.render(folder, check=True)
    assert docs.render(folder, check=False) == ["deploy-sku.md"]


@pytest.mark.parametrize("page", sorted(docs.pages()))
def test_a_manual_has_all_that_the_definition_of_done_asks_for(page: str) -> None:
    text = docs.pages()[page]

    for section in (
        "**Trigger**",
        "## Inputs",
        "## Outputs",
        "## Sequence",
        "## When it does not succeed",
        "## SLIs",
        "## Receipts",
    ):
        assert section in text
    assert "## Steps and their undos" in text or page == "degrade-to-safe-mode.md"
    drawn = text.split("```mermaid")[1].split("```")[0]
    assert drawn.count("alt ") + drawn.count("loop ") == drawn.count("end\n")
    assert ";" not in drawn  # it would end a line of the diagram


def test_every_receipt_a_manual_names_has_a_contract() -> None:
    for manual, _steps in docs.DECLARED.values():
        assert set(manual.receipts) <= set(MODELS)
