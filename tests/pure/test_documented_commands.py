"""Every ``ggen`` command that a page names exists, and takes the options it is shown with."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if not {"spec", "decisions"} & set(path.parts)
]
COMMAND = typer.main.get_command(app)
_END = re.compile(r"\$\(|[|;>&#)]|\|\||\s\\$|…")


def _shown(page: Path) -> Iterator[list[str]]:
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    spans = re.findall(r"`(ggen [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*blocks, *spans]:
        for found in re.finditer(r"(?:^|[\s(/])ggen ((?!\.|[-\w]+\.\w)[a-z].*)", line):
            yield _END.split(found[1])[0].replace("[", " ").replace("]", " ").split()


def _fault(words: list[str]) -> str:
    command: Any = COMMAND
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            return ""  # the page names a whole group: "ggen keys", "ggen runs list|show"
        known = command.commands.get(name)
        if known is None:
            return f"there is no command {name}"
        command = known
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    unknown = [
        o for each in given for o in each.split("|") if o.startswith("--") and o not in options
    ]
    return f"{command.name} takes no {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_names_only_commands_and_options_there_are(page: Path) -> None:
    faults = {" ".join(words): fault for words in _shown(page) if (fault := _fault(words))}

    assert faults == {}


def test_the_check_reads_commands_and_finds_what_is_wrong() -> None:
    assert len(list(_shown(ROOT / "docs" / "incidents.md"))) > 20
    assert _fault("backup FOLDER --keys FILE".split()) == ""
    assert _fault("backup FOLDER --key FILE".split()) == "backup takes no --key"
    assert _fault("drill end".split()) == "there is no command end"
