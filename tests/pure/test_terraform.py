"""``deploy/terraform``: every type, argument and required argument, against the provider's schema."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.providers import FILE, META, PACKAGE, REPEATED, Schema, distilled

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "terraform"
PYTHON = Path(sys.executable).parents[1] / ".audit" / "bin" / "python"
"""Of the environment in which python-hcl2 lies: its package ``cli`` would hide ours."""

READ = """
import json, sys, hcl2
from hcl2.utils import SerializationOptions
options = SerializationOptions(with_comments=False, explicit_blocks=True, strip_string_quotes=True)
print(json.dumps([hcl2.loads(open(f).read(), serialization_options=options) for f in sys.argv[1:]]))
"""
IS_BLOCK = "__is_block__"


@cache
def parsed() -> list[dict[str, Any]]:
    if not PYTHON.exists():
        pytest.skip(
            f"no python-hcl2 here: make {PYTHON.parent.relative_to(ROOT)}/pip-audit; CI does"
        )
    files = sorted(map(str, FOLDER.glob("*.tf")))
    done = subprocess.run([PYTHON, "-c", READ, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(found) == len(files) > 0
    return found


def blocks(kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in parsed():
        for block in file.get(kind, ()):
            for name, named in block.items():
                if name != IS_BLOCK:
                    for label, body in named.items():
                        if label != IS_BLOCK:
                            yield name, label, body


def used() -> set[str]:
    resources = {name for name, _, _ in blocks("resource")}
    return resources | {f"data.{name}" for name, _, _ in blocks("data")}


def faults(where: str, body: Mapping[str, Any], schema: Schema) -> Iterator[str]:
    given = _given(body)
    for name in schema.keys() - given.keys():
        if schema[name]["required"]:
            yield f"{where}: {name} is missing"
    for name in given.keys() - schema.keys():
        yield f"{where}: there is no argument {name}"
    for name in given.keys() & schema.keys():
        nested = _blocks_of(given[name])
        if bool(nested) != ("block" in schema[name]):
            yield f"{where}: {name} is {'no' if nested else 'a'} block"
        for each in nested:
            yield from faults(f"{where}.{name}", each, schema[name].get("block", {}))


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments and blocks, those of ``dynamic`` among them."""
    given = {name: value for name, value in body.items() if name not in (IS_BLOCK, "dynamic")}
    for dynamic in body.get("dynamic", ()):
        for name in dynamic.keys() - {IS_BLOCK}:
            given.setdefault(name, []).extend(dynamic[name]["content"])
    return given


def _blocks_of(value: object) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else []
    return [each for each in found if isinstance(each, dict) and IS_BLOCK in each]


def all_faults(schemas: Mapping[str, Schema]) -> list[str]:
    found = []
    for prefix, kind in (("", "resource"), ("data.", "data")):
        for name, label, body in blocks(kind):
            own = {k: v for k, v in body.items() if k not in META | REPEATED}
            found += list(faults(f"{prefix}{name}.{label}", own, schemas[f"{prefix}{name}"]))
    return found


def test_every_argument_is_one_and_none_that_is_required_is_missing() -> None:
    schemas = json.loads(FILE.read_text())

    assert used() == schemas.keys()
    assert all_faults(schemas) == []


def test_the_check_finds_what_is_wrong() -> None:
    schema = json.loads(FILE.read_text())["google_firestore_database"]
    body = {"name": "ggen", "location": "us", "type": "X", "cmek_config": [{IS_BLOCK: True}]}

    assert sorted(faults("it", body, schema)) == [
        "it.cmek_config: kms_key_name is missing",
        "it: location_id is missing",
        "it: there is no argument location",
    ]


def test_each_program_has_an_account_and_only_runbooks_touch_topics() -> None:
    bound = {
        (name, label): body
        for name, label, body in blocks("resource")
        if name.endswith("_iam_member")
    }
    signals = bound["google_project_iam_member", "signals"]

    assert signals["member"] == '${google_service_account.program["runbooks"].member}'
    assert not [b for b in bound.values() if "roles/owner" in str(b) or "roles/editor" in str(b)]
    assert "allUsers" not in "".join(path.read_text() for path in FOLDER.glob("*.tf"))


def test_terraform_itself_finds_nothing_to_format() -> None:
    if not (terraform := shutil.which("terraform")):
        pytest.skip("no terraform here")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", str(FOLDER)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.nightly
def test_the_schema_is_that_of_the_provider(tmp_path: Path) -> None:
    fetched = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(tmp_path),
            PACKAGE,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"{PACKAGE} cannot be fetched: {fetched.stderr[-200:]}")
    (wheel,) = tmp_path.glob("*.whl")

    assert distilled(wheel, used()) == json.loads(FILE.read_text())
