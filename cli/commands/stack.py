"""``ggen up``."""

import sys
from collections.abc import Callable

from cli.output import show
from cli.stack import programs, supervisor
from cli.stack.logs import Logs
from config.settings import Settings, load


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
