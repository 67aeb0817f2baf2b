"""What the documents show is executed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.conftest import EXAMPLE, SHORT, Stack, install_example, new_stack

ROOT = Path(__file__).parents[2]


def test_the_tour_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    stack = new_stack(tmp_path, **SHORT)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\n" + "\n".join(blocks).replace("--for 40s", "--for 6s")
    try:
        told = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**stack.environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        stack.ggen("down")

    assert len(blocks) == 3
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


def test_the_example_action_is_printed_as_it_is() -> None:
    page = (ROOT / "docs/actions.md").read_text()

    for name in ("crm_actions/seats.py", "crm.starter.json"):
        assert (EXAMPLE / name).read_text() in page


def test_a_second_version_of_a_policy_is_kept_and_not_in_force(
    stack: Stack, tmp_path: Path
) -> None:
    example = (EXAMPLE / "crm.starter.json").read_text()
    known = example.replace("crm.add_seats", "demo.succeed")
    for version, says in (("1.0.0", "1.0.0 is in force"), ("1.1.0", "1.0.0 stays in force")):
        file = tmp_path / "crm.starter.json"
        file.write_text(known.replace("1.0.0", version))

        told = stack.ggen("publish-policy", str(file))

        assert told.returncode == 0, told.stderr
        assert says in told.stdout
    refused = stack.ggen("publish-policy", str(EXAMPLE / "crm.starter.json"))
    assert refused.returncode == 2
    assert "unknown handlers: crm.add_seats" in refused.stderr


def test_the_example_action_passes_its_test_where_it_is_installed(tmp_path: Path) -> None:
    site = install_example(tmp_path)

    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
            "-c",
            os.devnull,
            EXAMPLE / "tests",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 0, told.stdout + told.stderr
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


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_webhook_by_curl_is_answered_as_it_is_printed(stack: Stack) -> None:
    page = (ROOT / "docs" / "interface.md").read_text()
    (script,) = re.findall(r"```sh\n(BODY=.*?)```", page, re.DOTALL)
    script = script.replace(".ggen/", f"{stack.state}/").replace(":8080", f":{stack.http_port}")

    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)

    assert '"operation":"entitlement_active"' in told.stdout, told.stderr


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (
            {
                "eventType": "ENTITLEMENT_ACTIVE",
                "eventId": "CREATE-1",
                "entitlement": {"id": "relay-google", "product": "demo-sku", "plan": "pro-monthly"},
            },
            0,
        ),
        (
            {
                "action": "Subscribe",
                "id": "op-1",
                "subscriptionId": "relay-azure",
                "offerId": "demo-sku",
                "planId": "starter",
            },
            0,
        ),
        ({"eventType": "ACCOUNT_ACTIVE", "account": {"id": "x"}}, 1),
    ],
)
def test_the_example_relay_translates_signs_and_delivers(
    stack: Stack, event: dict[str, object], code: int
) -> None:
    relay = ROOT / "examples" / "marketplace_relay.py"
    environment = {
        "GGEN_URL": f"http://127.0.0.1:{stack.http_port}",
        "WEBHOOK_KEY": stack.secrets.webhook_secrets()[0],
    }

    done = subprocess.run(
        [sys.executable, "-I", relay],
        input=json.dumps(event),
        text=True,
        env=environment,
        capture_output=True,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert len(relay.read_text().splitlines()) <= 60
