"""What the documents show is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.stack.conftest import Stack, new_stack

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
    assert told.stdout.count("=> valid") == 3
    assert "action_rolled_back" in told.stdout
    assert (tmp_path / "acme.tar.gz").stat().st_size > 0


def test_the_example_signal_is_accepted_as_it_is_printed(stack: Stack) -> None:
    stack.subscribe("acme")
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/interface.md").read_text(), re.DOTALL
    )
    code = example.replace(".ggen/", f"{stack.state}/").replace(":8080/", f":{stack.http_port}/")

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert '"state":"pending"' in told.stdout


def test_the_example_policy_is_published_as_it_is_printed(stack: Stack, tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/actions.md").read_text(), re.DOTALL)
    known = example.replace("crm.resize", "demo.succeed")
    for version, says in (("1.0.0", "1.0.0 is in force"), ("1.1.0", "1.0.0 stays in force")):
        file = tmp_path / "crm.starter.json"
        file.write_text(known.replace("1.0.0", version))

        told = stack.ggen("publish-policy", str(file))

        assert told.returncode == 0, told.stderr
        assert says in told.stdout
    (tmp_path / "other.json").write_text(example)
    refused = stack.ggen("publish-policy", str(tmp_path / "other.json"))
    assert refused.returncode == 2
    assert "unknown handlers: crm.resize" in refused.stderr
    sent = stack.ggen("send-webhook", "--account-id", "docs-crm", "--sku-id", "crm")
    assert sent.returncode == 0, sent.stderr
    acted = stack.ggen(
        "send-signal", "--account-id", "docs-crm", "--type", "seats.changed", "--wait"
    )
    assert "complete" in acted.stdout


def test_the_example_action_passes_its_test_as_both_are_printed(tmp_path: Path) -> None:
    handlers, test = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/actions.md").read_text(), re.DOTALL
    )
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "crm_actions.py").write_text(handlers)
    (tmp_path / "test_crm.py").write_text(test)

    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_crm.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f".:{ROOT}"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip

    assert told.returncode == 0, told.stdout
    assert "1 passed" in told.stdout


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
