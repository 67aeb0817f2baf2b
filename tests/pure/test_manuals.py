"""The manuals are what the runbooks declare."""

import re
from pathlib import Path

import pytest

from cli.commands import docs, references
from governor.errors import ConflictError
from ledger.contracts import MODELS

_CODE = re.compile(
    r"(?:Input|Denied|Conflict|Outage|Policy|Fields|Governor)Error\(\s*\"([a-z][a-z0-9-]+)\""
)
_ONLY_COMMANDS = ("client.py", "demo.py", "dead_letters.py", "operators.py")
DOCS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_the_rendered_manuals_are_current() -> None:
    assert {p.name: p.read_text() for p in DOCS.glob("*.md")} == docs.pages()


def test_the_references_are_those_of_the_models() -> None:
    assert {p.name: p.read_text() for p in DOCS.parent.glob("reference/*.md")} == references.pages()


def test_the_files_of_monitoring_are_current() -> None:
    deploy = DOCS.parents[1] / "deploy"

    assert {n: (deploy / n).read_text() for n in references.monitoring()} == references.monitoring()


def test_every_setting_and_member_of_a_policy_says_what_it_is() -> None:
    for page in references.pages().values():
        assert not [line for line in page.splitlines() if line.endswith("|  |")]


def test_a_stale_page_is_named_and_written(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "runbooks"
    names = [path.rpartition("/")[2] for path in (*references.pages(), *references.monitoring())]
    assert docs.render(folder, check=False) == [*sorted(docs.pages()), *names]
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
    assert "## Steps and their undos" in text or page in (
        "degrade-to-safe-mode.md",
        "recover-action.md",
    )
    drawn = text.split("```mermaid")[1].split("```")[0]
    assert drawn.count("alt ") + drawn.count("loop ") == drawn.count("end\n")
    assert ";" not in drawn  # it would end a line of the diagram


def test_each_diagram_is_drawn_from_its_own_declaration() -> None:
    pages = docs.pages()
    assert [n for n, text in pages.items() if "Marketplace" in text.split("## Sequence")[1]] == [
        "customer-cancels.md",
        "deploy-sku.md",
        "entitlement-lifecycle.md",
        "entitlement-standing.md",
    ]
    assert "entitlement" not in pages["recover-action.md"].split("## Sequence")[1].split("##")[0]


def test_every_receipt_a_manual_names_has_a_contract() -> None:
    for manual, _steps in docs.DECLARED.values():
        assert set(manual.receipts) <= set(MODELS)


def test_every_code_that_the_doors_or_a_receipt_tell_is_explained() -> None:
    page = (DOCS.parent / "problems.md").read_text()
    told = set()
    for folder in ("ingress", "tasks/runs", "tasks/runbooks", "tasks/governors", "tasks/actions"):
        for module in (DOCS.parents[1] / folder).rglob("*.py"):
            if module.name not in _ONLY_COMMANDS:
                told |= set(_CODE.findall(module.read_text()))

    assert len(told) > 30
    assert sorted(code for code in told if f"`{code}`" not in page) == []
