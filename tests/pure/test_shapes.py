"""Every command with ``--json`` has a schema; tests check what commands print against it."""

from typing import Any

import pytest
import typer
from pydantic import TypeAdapter, ValidationError

from cli.main import app
from cli.shapes.commands import COMMANDS, schema
from tests.support.commands import check_shape

WITHOUT = {"demo", "bench", "docs", "schema", "sync", "publish-policy", "policy publish"}
WITHOUT |= {"policy sign", "drill degrade", "policy sync"}
"""What is for people and developers, or prints one of the others' values."""


def _commands(command: Any, words: str = "") -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {words: command}
    found = {}
    for name, each in command.commands.items():
        found |= _commands(each, f"{words} {name}".strip())
    return found


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {
        words
        for words, command in _commands(typer.main.get_command(app)).items()
        if any("--json" in parameter.opts for parameter in command.params)
    }

    assert printing - WITHOUT == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_schema_is_one(command: str) -> None:
    assert TypeAdapter(dict[str, Any]).validate_python(schema(command))


def test_another_shape_is_found() -> None:
    check_shape(["queue", "--json"], '{"depth": 0, "longest": []}')
    with pytest.raises(ValidationError):
        check_shape(["queue", "--json"], '{"depth": 0}')
    with pytest.raises(ValidationError):
        check_shape(["queue", "--json"], '{"depth": 0, "longest": [], "more": 1}')
