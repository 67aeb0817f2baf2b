"""Every ``gcloud`` command that a page shows exists, with its flags, in the CLI's own table."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.tools import lacks

ROOT = Path(__file__).parents[2]
_END = re.compile(r"\s#|[|;&)](?=\s|$)|\)$|`")


@cache
def tree() -> dict[str, Any]:
    """All commands, by their parts, as the CLI completes them."""
    found = shutil.which("gcloud")
    if found is None:
        lacks("no Google Cloud CLI here")
    table = Path(found).resolve().parents[1] / "data" / "cli" / "gcloud_completions.py"
    spec = importlib.util.spec_from_file_location("gcloud_completions", table)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told: dict[str, Any] = module.STATIC_COMPLETION_CLI_TREE
    return told


def shown() -> Iterator[tuple[str, str]]:
    """Page and command."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text().replace("\\\n", " ")
        for found in re.finditer(r"(?:^|[\s(`])gcloud ([a-z].*)", text, re.MULTILINE):
            yield page.name, _END.split(found[1])[0].strip()


def fault(command: str) -> str:
    """What is wrong with a command; empty where nothing is."""
    words, at = shlex.split(command), tree()
    path = ["gcloud"]
    while words and words[0] in at["commands"]:
        path.append(words.pop(0))
        at = at["commands"][path[-1]]
    if at["commands"] and words:
        return f"{' '.join(path)} has no {words[0]}"
    known = at["flags"].keys() | tree()["flags"].keys()
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    return f"{' '.join(path)} takes no {sorted(given - known)}" if given - known else ""


def test_every_gcloud_command_that_is_shown_exists() -> None:
    found = list(shown())

    assert len(found) > 8
    assert {(page, command): told for page, command in found if (told := fault(command))} == {}


def test_the_check_finds_what_is_wrong() -> None:
    assert fault("secrets versions add NAME --data-file=x") == ""
    assert fault("secrets versions put NAME") == "gcloud secrets versions has no put"
    assert fault("builds submit --tags x").endswith("takes no ['--tags']")
