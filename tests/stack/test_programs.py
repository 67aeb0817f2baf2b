"""One program at a time, as containers run them; and what the container files name."""

import json
import os
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
from check_jsonschema.parsers import ParserSet

from config.settings import Settings
from tests.stack.conftest import GGEN, Stack, new_stack
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
COMPOSE = ParserSet().parse_file(ROOT / "docker-compose.yml", "yaml")


def _programs() -> dict[str, list[str]]:
    return {
        name: service["command"]
        for name, service in COMPOSE["services"].items()
        if service.get("image") == "ggen-governor"
    }


APART = {"beat": [], "pump": ["secrets"], "flower": ["run"]}
"""What of the state directory a program has that signs nothing and reads no document."""


def _apart(stack: Stack, folder: Path, name: str) -> dict[str, str]:
    """The environment of a program in a directory of its own, as its container has it."""
    state = folder / name
    state.mkdir()
    for each in APART[name]:
        (state / each).symlink_to(stack.state / each)
    password = str(stack.state / "secrets" / "valkey.password")
    own = {"GGEN_STATE_DIR": str(state), "GGEN_VALKEY_PASSWORD_FILE": password}
    return {**stack.environment, **own, "GGEN_VALKEY_HOST": "localhost"}


def test_prepared_and_run_one_by_one_the_programs_are_seen_at_work(tmp_path: Path) -> None:
    stack = new_stack(tmp_path)
    prepared = stack.ggen("prepare")
    assert prepared.returncode == 0, prepared.stderr
    names = ("valkey", "ingress", "actions", "runbooks", "health", "beat", "pump", "flower")
    started = [
        subprocess.Popen(
            [*GGEN, "run", name],
            env=_apart(stack, tmp_path, name) if name in APART else stack.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    try:
        for name in names[1:]:
            until(lambda name=name: stack.ggen("alive", name).returncode == 0, 60)  # type: ignore[misc]
        told = stack.ggen("send-webhook", "--account-id", "one-by-one", "--json")
        assert json.loads(told.stdout)["operation"] == "entitlement_active", told.stderr
        assert stack.ggen("status").returncode == 0
    finally:
        for each in started:
            os.killpg(each.pid, signal.SIGKILL)
        for each in started:
            each.wait()


@pytest.mark.parametrize("command", ["run", "alive"])
def test_a_program_nobody_knows_is_refused_with_those_that_are(stack: Stack, command: str) -> None:
    refused = stack.ggen(command, "actoins")

    assert refused.returncode == 2
    assert "actions" in refused.stderr


def test_a_program_that_does_nothing_is_not_alive(tmp_path: Path) -> None:
    stack = new_stack(tmp_path)
    assert stack.ggen("prepare").returncode == 0

    for name in ("actions", "ingress"):
        assert stack.ggen("alive", name).returncode == 5


def test_a_pump_has_nothing_to_do_where_pubsub_delivers(tmp_path: Path) -> None:
    stack = new_stack(
        tmp_path,
        GGEN_SIGNALS_URL="pubsub://p",
        PUBSUB_EMULATOR_HOST="127.0.0.1:1",
        GGEN_PUSH_WITHOUT_TOKEN="true",
    )
    ended = stack.ggen("run", "pump")

    assert ended.returncode == 0
    assert "nothing for a pump to do" in ended.stdout


def test_compose_runs_every_program_of_the_stack_and_proves_that_it_works(stack: Stack) -> None:
    from cli.stack.programs import commands

    programs = _programs()
    assert programs.pop("prepare") == ["prepare"]
    assert programs == {
        name: ["run", name] for name in commands(stack.settings) if name != "valkey"
    }
    for name in programs:
        checked = COMPOSE["services"][name]["healthcheck"]["test"]
        assert checked == ["CMD", "ggen", "alive", name]


def test_compose_gives_the_keys_to_who_signs_and_valkey_a_password() -> None:
    services = COMPOSE["services"]
    mounts = {name: [v.split(":")[1] for v in s.get("volumes", ())] for name, s in services.items()}

    signers = {name for name, places in mounts.items() if "/state/keys" in places}
    assert signers == {"prepare", "ingress", "actions", "runbooks", "health"}
    for name, parts in APART.items():
        own = [p.removeprefix("/state/") for p in mounts[name] if p.startswith("/state/")]
        assert own == parts
        assert "/state" in services[name]["tmpfs"]
    assert "--requirepass" in " ".join(services["valkey"]["command"])
    assert not [p for s in services.values() for p in s.get("ports", ()) if "6379" in p]


def test_compose_names_no_setting_that_nobody_reads() -> None:
    from config.settings import variable

    known = {variable(name) for name in Settings.model_fields}
    for service in COMPOSE["services"].values():
        assert set(service.get("environment", {})) <= known
    for line in (ROOT / "config" / "emulators.env").read_text().splitlines():
        if not line.startswith("#"):
            assert line.partition("=")[0] in known


def test_the_image_holds_every_package() -> None:

    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = [name.rstrip("*") for name in found["find"]["include"]]
    dockerfile, ignored = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()
    for package in packages:
        assert f"COPY {package} {package}" in dockerfile
        assert f"!{package}\n" in ignored
