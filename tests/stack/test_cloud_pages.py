"""The pages on Google Cloud, played as they stand: only Google's own answers are made up.

Terraform, kubectl, jq, openssl and curl are the real ones. ``terraform apply`` leaves the outputs
that the files name; ``gcloud`` notes what it was asked, and sees that each file it is given exists.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, variable
from tests.stack.conftest import SHORT, Stack, new_stack
from tests.support.tools import lacks

ROOT = Path(__file__).parents[2]
NEEDS = ("terraform", "kubectl", "jq", "openssl", "curl")
STANDINS = """
set -Eeu
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
gcloud() {
  local last=${*: -1}
  echo "gcloud $*" >> "$ASKED"
  case "$*" in
    *--data-file=*) test -s "${last##*--data-file=}";;  # an empty secret is refused
    *describe*) echo sha256:0123;;
  esac
}
terraform() {
  case "$1" in
    output | -chdir=*) command terraform "$@";;
    apply) cp "$OUTPUTS" terraform.tfstate;;
  esac
}
kubectl() {
  echo "kubectl $*" >> "$ASKED"
  case "$1" in create) command kubectl "$@" --dry-run=client -o json | jq -c . >> "$MADE";; esac
}
make() { :; }
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with its environment, as the page's reader has it."""
    for name in NEEDS:
        if shutil.which(name) is None:
            lacks(f"no {name} here")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "deploy" / "terraform", clone / "deploy" / "terraform")
    shutil.copytree(ROOT / "config" / "policies", clone / "config" / "policies")
    (clone / ".venv").mkdir()
    (clone / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    return clone


def blocks(page: str) -> list[str]:
    """What a page has its reader type."""
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def outputs(url: str, key_id: str) -> dict[str, Any]:
    """What ``terraform apply`` would leave: the files it has places for, as ``secrets.tf`` says."""
    text = (ROOT / "deploy" / "terraform" / "secrets.tf").read_text()
    files = re.findall(r'^    "([^"]+)" += ', text, re.MULTILINE)
    assert len(files) == 9
    named = [name.replace("${var.signing_key}", key_id) for name in files]
    secrets = {name: f"ggen-{re.sub('[/.]', '-', name)}" for name in named}
    settings = dict.fromkeys(settings_named(), "of-terraform")
    told = {"url": url, "secrets": secrets, "settings": settings}
    typed = {
        name: {"value": value, "type": "string" if isinstance(value, str) else ["map", "string"]}
        for name, value in told.items()
    }
    return {"version": 4, "terraform_version": "1.9.0", "serial": 1, "outputs": typed}


def settings_named() -> list[str]:
    """The settings that ``output "settings"`` has, as ``programs.tf`` says."""
    text = (ROOT / "deploy" / "terraform" / "programs.tf").read_text()
    (block,) = re.findall(r"^  settings = \{\n(.*?)^  \}", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^    (GGEN_\w+)", block, re.MULTILINE)


def play(script: str, clone: Path, environment: dict[str, str]) -> str:
    """What a script prints; it must go well."""
    done = subprocess.run(
        ["bash", "-c", STANDINS + script],
        cwd=clone,
        env={**os.environ, **environment, "TF_CLI_CONFIG_FILE": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def cloud(clone: Path) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack whose state directory is the page's ``cloud``, and what the stand-ins go by."""
    stack = new_stack(clone, **SHORT)
    own = Stack(clone / "cloud", stack.http_port, stack.flower_port, stack.valkey_port, SHORT)
    files = {name: str(clone / name.lower()) for name in ("ASKED", "OUTPUTS", "MADE")}
    yield own, own.environment | files
    own.ggen("down")


def test_the_quickstart_leads_from_an_empty_project_to_a_receipt(
    clone: Path, cloud: tuple[Stack, dict[str, str]]
) -> None:
    stack, environment = cloud
    start, secrets, places, values, image, policy, event = blocks("quickstart-google-cloud.md")
    listed = play(start + secrets, clone, environment)
    key_id = re.search(r"[0-9a-f]{32}", listed)
    assert key_id, listed
    url = f"http://127.0.0.1:{stack.http_port}"
    (clone / "outputs").write_text(json.dumps(outputs(url, key_id[0])))

    up = f"cd {clone}; GGEN_STATE_DIR=$PWD/cloud .venv/bin/ggen up --detach; cd deploy/terraform\n"
    named = "export GGEN_STATE_DIR=$PWD/cloud GGEN_LEDGER_ORIGIN=ledger.example.com\n"
    rest = [places.replace("…", key_id[0]), values, up, image, policy, event]
    told = play("\n".join([named, start, *rest]), clone, environment)

    asked = (clone / "asked").read_text()
    assert asked.count("secrets versions add") == 9
    assert (
        f'signing_key   = "{key_id[0]}"'
        in (clone / "deploy" / "terraform" / "terraform.tfvars").read_text()
    )
    receipt = json.loads(told.splitlines()[-1])
    assert receipt["operation"] == "entitlement_active"


def test_the_commands_for_gke_make_what_the_manifest_mounts(
    clone: Path, cloud: tuple[Stack, dict[str, str]]
) -> None:
    _, environment = cloud
    (commands,) = blocks("gke.md")
    _, secrets, *_ = blocks("quickstart-google-cloud.md")
    (clone / "outputs").write_text(json.dumps(outputs("http://127.0.0.1:1", "0" * 32)))
    named = "PROJECT=my-project REGION=us-central1\n"

    play(named + secrets + "cd deploy/terraform; terraform apply\n" + commands, clone, environment)

    made = [json.loads(line) for line in (clone / "made").read_text().splitlines()]
    held = {(m["kind"], m["metadata"]["name"]): set(m.get("data", {})) for m in made}
    assert {name for kind, name in held if kind == "ServiceAccount"} == {
        f"ggen-{program}" for program in ("ingress", "actions", "runbooks", "health", "beat")
    }
    assert held["ConfigMap", "ggen"] == set(settings_named())
    known = {variable(name) for name in Settings.model_fields}
    assert held["ConfigMap", "ggen"] <= known
    assert held["Secret", "ggen-keys"] >= {"current", "ring.json"}
    assert held["Secret", "ggen-master"] == {"master.key", "alert.urls"}
    assert held["Secret", "ggen-doors"] > {"webhook.key", "policy.key", "master.key"}
    manifest = re.findall(r"secretName: ([\w-]+)", (ROOT / "docs" / "gke.md").read_text())
    assert {("Secret", name) for name in manifest} <= held.keys()
