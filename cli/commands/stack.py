"""``ggen up`` and ``ggen status``."""

import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from cli.commands import watch as watching
from cli.output import show
from cli.stack import programs, supervisor
from cli.stack.logs import Logs
from config.settings import Settings, load
from governor.errors import OutageError


def up(detach: bool, as_json: bool) -> None:
    """Start the stack, in the foreground or detached."""
    settings = load()
    if detach:
        with supervisor.only_one(settings):
            programs.check_ports(settings)
            _tell(programs.prepare(settings))
        supervisor.detach(settings)
        _banner(settings, as_json)
        return
    with supervisor.only_one(settings):
        programs.check_ports(settings)
        _tell(programs.prepare(settings))
        _tell(["starting…"])
        supervisor.run(settings, lambda: _banner(settings, as_json), _follower(settings), _tell)


def _tell(notices: list[str]) -> None:
    for notice in notices:
        print(notice, file=sys.stderr, flush=True)


def status(as_json: bool, watch: bool) -> int:
    """Print the running programs, the health and missing parts; 0 when ready, otherwise 5."""
    settings = load()
    if watch:
        watching.watch(lambda: _ask(settings), as_json)
        return 0
    components = {
        name: {"pid": process.pid, "up_s": round(time.time() - process.create_time())}  # noqa: TID251
        for name, process in sorted(supervisor.processes(settings).items())
    }
    answer = _ask(settings)
    lines = [f"{n:<9} process {c['pid']:<8} up {c['up_s']} s" for n, c in components.items()]
    lines += watching.health_lines(answer)
    lines += [f"missing: {name}: {why}" for name, why in answer["missing"].items()]
    lines.append(f"{'ready' if answer['ready'] else 'not ready'}: {settings.state_dir}")
    show({**answer, "components": components}, as_json, "\n".join(lines))
    return 0 if answer["ready"] else OutageError.exit_code


def _ask(settings: Settings) -> dict[str, Any]:
    """What ``/readyz`` answers, or why it does not."""
    try:
        answer = httpx.get(
            supervisor.address(settings) + "/readyz", timeout=3, trust_env=False
        ).json()
        return {"missing": {}, **answer}
    except OutageError as error:
        return {"ready": False, "missing": {"stack": error.detail}}
    except (httpx.HTTPError, ValueError, TypeError):
        return {"ready": False, "missing": {"ingress": "does not answer; start it with: ggen up"}}


def _banner(settings: Settings, as_json: bool) -> None:
    facts = {
        "url": supervisor.base_url(settings),
        "flower": f"http://127.0.0.1:{settings.flower_port} (user ggen)",
        "state": str(settings.state_dir),
        "secrets": str(settings.secrets_dir),
        "log": str(settings.log_dir),
    }
    lines = [f"  {name:<8} {value}" for name, value in facts.items()]
    show(facts, as_json, "\n".join(["ready", *lines]))
    sys.stdout.flush()


def _follower(settings: Settings) -> Callable[[], None]:
    """Print what the log gained since the first call, when a person is watching."""
    if not sys.stdout.isatty():
        return lambda: None
    logs: list[Logs] = []

    def follow() -> None:
        if not logs:
            print("Ctrl-C stops it; the log follows.", flush=True)
            logs.append(Logs(settings))
            logs[0].last(0)
        for line in logs[0].new():
            print(line, flush=True)

    return follow
