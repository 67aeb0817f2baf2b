"""One program at a time, as containers run them: ``ggen prepare``, ``ggen run``, ``ggen alive``."""

import os
import signal
import sys
from typing import Annotated

import typer

from cli.output import STACK, Json, show
from governor.errors import InputError, OutageError

Program = Annotated[str, typer.Argument(help="ingress, actions, runbooks, health, beat, …")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=STACK)(prepare)
    app.command(rich_help_panel=STACK)(run)
    app.command(rich_help_panel=STACK)(alive)


def prepare(as_json: Json = False) -> None:
    """Make secrets, keys and configuration that are missing, and register the policies; once."""
    from cli.stack import programs
    from config.settings import load

    settings = load()
    notices = programs.prepare(settings)
    text = "\n".join([*notices, f"prepared: {settings.state_dir}"])
    show({"state_dir": str(settings.state_dir), "notices": notices}, as_json, text)


def run(program: Program) -> None:
    """Become one program of the stack; the process that started this supervises it."""
    from cli.stack import programs, supervisor
    from config.settings import environment, load

    settings = load()
    if program == "pump" and not settings.delivers_signals_itself:
        print("Pub/Sub delivers the signals itself: there is nothing for a pump to do")
        return
    command = _command(programs.commands(settings), program)
    variables = {
        **environment(settings),
        "REMAP_SIGTERM": "SIGQUIT",
        "SUPERVISOR_PROCESS_NAME": program,
    }
    if program == "ingress":
        supervisor.note_address(settings)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(settings.state_dir)  # Celery would else find a module of the working directory first
    sys.stdout.flush()
    os.execvpe(command[0], command, variables)  # noqa: S606  # a command of our own, no shell


def alive(program: Program, as_json: Json = False) -> None:
    """Whether a program did its work lately: a queue that is consumed, a door that answers."""
    from adapters.wiring import open_ports
    from cli.stack import programs, supervisor
    from config.settings import load

    settings = load()
    _command(programs.commands(settings), program)
    if program == "ingress":
        _answers(f"{supervisor.base_url(settings)}/healthz")
    elif program == "flower":
        _answers(f"http://127.0.0.1:{settings.flower_port}/healthcheck")
    elif not open_ports(settings).watches.alive([program])[program]:
        raise OutageError("not-alive", f"{program} has not been seen at work lately; see its log")
    show({"program": program, "alive": True}, as_json, f"{program} is at work")


def _command(commands: dict[str, list[str]], program: str) -> list[str]:
    if program not in commands:
        known = ", ".join(commands)
        raise InputError("unknown-program", f"{program[:64]!r} is none of: {known}")
    return commands[program]


def _answers(url: str) -> None:
    import httpx

    try:
        answer = httpx.get(url, timeout=3, trust_env=False)
    except httpx.HTTPError as error:
        raise OutageError("not-alive", f"{url} does not answer") from error
    if answer.status_code not in (200, 401):
        raise OutageError("not-alive", f"{url} answers {answer.status_code}")
