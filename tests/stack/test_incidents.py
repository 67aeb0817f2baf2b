"""Every command of ``docs/incidents.md`` is run, on a stack that has what the commands ask for."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.conftest import SHORT, Stack, new_stack
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "incidents.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line
]


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack with a customer, a run that has ended, and an action that failed."""
    stack = new_stack(tmp_path_factory.mktemp("incidents"), **SHORT)
    started = stack.ggen("up", "--detach")
    assert started.returncode == 0, started.stderr
    receipt = stack.subscribe("acme")
    signal = {"signal_id": "s", "type": "demo.fail", "payload": {"recoverable": True}}
    answer = stack.signal("acme", signal)
    assert answer.status_code == 202, answer.text
    until(lambda: stack.read(answer.headers["Location"])["ended_at"], 30)
    action_id = str(answer.json()["action_id"])
    yield stack, {"$ACCOUNT": "acme", "$RUN": receipt["run_id"], "$ACTION": action_id}
    stack.ggen("down")


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_a_command_of_the_incidents_page_answers(
    incident: tuple[Stack, dict[str, str]], command: str
) -> None:
    stack, names = incident
    program, *words = shlex.split(command)
    done = stack.ggen(*(names.get(word, word) for word in words))

    assert program == "ggen"
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
