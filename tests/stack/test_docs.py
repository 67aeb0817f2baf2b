"""What the documents show is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.conftest import new_stack

ROOT = Path(__file__).parents[2]


def test_the_tour_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    stack = new_stack(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\n" + "\n".join(blocks)
    try:
        told = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env={**stack.environment, "PATH": path},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        stack.ggen("down")

    assert len(blocks) == 2
    assert told.returncode == 0, told.stdout + told.stderr
    assert "=> valid, not sealed yet" in told.stdout
    assert "action_rolled_back" in (tmp_path / "receipts.jsonl").read_text()


def test_the_example_action_works_as_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/actions.md").read_text(), re.DOTALL
    )
    code = (
        "import time\n" + example + "\nfrom tasks.handlers import registered\n"
        "context = ActionContext('acme', 'crm', 'action-1', 's', time.monotonic() + 1)\n"
        "handler = registered()['crm.resize']\n"
        "handler.call(context, '{\"seats\": 3}')\n"
        "handler.call_rollback(context, '{\"seats\": 3}')\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.startswith("seats acme 3 ")
    assert "restored acme action-1" in told.stdout


def test_every_problem_the_code_knows_is_explained() -> None:
    from governor.quota import Verdict
    from ingress.problems import STATUS

    page = (ROOT / "docs" / "problems.md").read_text()
    codes = set(STATUS) | {v.value for v in Verdict} - {"admitted", "duplicate"}

    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
