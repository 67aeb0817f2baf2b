"""Show something as it changes, until Ctrl-C: ``--watch``."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from cli.output import show

_EVERY_S = 0.5


def changes(look: Callable[[], tuple[Any, str]], as_json: bool) -> None:
    """Show what ``look`` gives whenever its text changes, until Ctrl-C."""
    former = None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            value, text = look()
            if text != former:
                show(value, as_json, text)
                sys.stdout.flush()
            former = text
            time.sleep(_EVERY_S)


def watch(look: Callable[[], dict[str, Any]], as_json: bool) -> None:
    """Show the overview until Ctrl-C: live for people, else one line for each change."""
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _live(look)
        else:
            changes(lambda: _line(look()), as_json)


def _live(look: Callable[[], dict[str, Any]]) -> None:
    from rich.live import Live

    from cli.overview.screen import panel

    with Live(refresh_per_second=4, screen=True) as live:
        while True:
            live.update(panel(look(), live.console.width))
            time.sleep(_EVERY_S)


def _line(answer: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The overview, and a line that differs where something changed that matters."""
    names = ("mode", "failed_checks", "spooled", "refused", "undelivered_alerts", "drill")
    known = [f"{name}={answer[name]}" for name in names if answer.get(name) not in (None, "")]
    wrong = [each["what"] for each in answer["problems"]]
    return answer, "  ".join([*known, "wrong: " + ("; ".join(wrong) or "nothing")])
