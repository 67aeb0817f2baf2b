"""``ggen status``: what runs, what it does, each problem, and what to do about it."""

import shutil
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import httpx

from cli.output import show
from cli.overview import screen, watch
from cli.overview.facts import facts
from cli.overview.problems import problems
from cli.stack import supervisor
from cli.stores import opened
from config.settings import Settings, load
from governor.errors import GovernorError, OutageError
from tasks.health import readiness

_NARROW = 80
_NO_INGRESS = {"ingress": "does not answer; start it with: ggen up"}


def status(as_json: bool, is_watched: bool) -> int:
    """Print the overview; 0 when ready, otherwise 5."""
    settings = load()
    if is_watched:
        watch.watch(lambda: overview(settings), as_json)
        return 0
    answer = overview(settings)
    width = shutil.get_terminal_size((_NARROW, 24)).columns if sys.stdout.isatty() else _NARROW
    show(answer, as_json, screen.text(answer, width))
    return 0 if answer["ready"] else OutageError.exit_code


def overview(settings: Settings) -> dict[str, Any]:
    """What ``/readyz`` answers, the programs, each part of the facts, and the problems.

    Where Memory is elsewhere and neither a program nor an ingress is here, they are elsewhere, too:
    then it is read from the stores whether the system does work.
    """
    programs = supervisor.processes(settings)
    answer = _ask(settings, is_elsewhere=bool(settings.memory_url) and not programs)
    try:
        known = facts(opened(), settings)
    except GovernorError:
        known = {}  # nothing was started here; ``missing`` says so
    return {
        **answer,
        "version": version("ggen-governor"),
        "state_dir": str(settings.state_dir),
        "components": {
            name: {"pid": process.pid, "up_s": round(time.time() - process.create_time())}  # noqa: TID251
            for name, process in sorted(programs.items())
        },
        **known,
        "problems": [asdict(each) for each in problems(answer, known)],
    }


def _read(settings: Settings) -> dict[str, Any]:
    """Whether the system does work, by its stores, and which programs were heard of lately."""
    try:
        ports = opened()
        missing, health = readiness.look(
            ports, has_pump=settings.delivers_signals_itself, signs=False
        )
        if "memory" in missing:
            return {"ready": False, "missing": missing, **health}
        heard = readiness.heard(ports)
    except GovernorError as error:
        return {"ready": False, "missing": {"stack": error.detail}}
    if not heard["programs"].get("ingress"):
        missing["ingress"] = "none has been heard of lately"
    return {"ready": not missing, "missing": missing, **health, "heard": heard}


def _ask(settings: Settings, *, is_elsewhere: bool) -> dict[str, Any]:
    """What ``/readyz`` answers, or why it does not."""
    try:
        answer = httpx.get(
            supervisor.address(settings) + "/readyz", timeout=3, trust_env=False
        ).json()
        return {"missing": {}, **answer}
    except (OutageError, httpx.ConnectError) as error:
        if is_elsewhere:
            return _read(settings)
        why = {"stack": error.detail} if isinstance(error, OutageError) else _NO_INGRESS
        return {"ready": False, "missing": why}
    except (httpx.HTTPError, ValueError, TypeError):
        return {"ready": False, "missing": _NO_INGRESS}
