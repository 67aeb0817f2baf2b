"""``ggen status --watch``: mode, lease, failed checks and spool, as they change."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from cli.output import show

_EVERY_S = 0.5
_SHOWN = {
    "mode": "mode",
    "lease_s": "lease left (s)",
    "failed_checks": "failed checks in a row",
    "error_code": "error",
    "since": "failing since",
    "spooled": "commits in the spool",
    "refused": "signals refused meanwhile",
    "degraded_tenants": "tenants in a drill refused",
    "drill": "drill",
    "undelivered_alerts": "undelivered alerts",
    "alert_fault": "alert fault",
}


def health_lines(answer: dict[str, Any]) -> list[str]:
    """The health ``/readyz`` reports, a line for each value; empty values are left out."""
    lines = [
        f"{title}: {answer[name]}"
        for name, title in _SHOWN.items()
        if answer.get(name) not in (None, "")
    ]
    lines += [
        f"trouble: {t['name']}: {t['detail']}"
        for t in answer.get("troubles", ())
        if t["name"] not in answer.get("missing", {})
    ]
    return lines


def watch(look: Callable[[], dict[str, Any]], as_json: bool) -> None:
    """Show what ``look`` gives until Ctrl-C: live for people, else a line whenever it changes."""
    try:
        if sys.stdout.isatty() and not as_json:
            _live(look)
        else:
            _lines(look, as_json)
    except KeyboardInterrupt:
        pass


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


def _live(look: Callable[[], dict[str, Any]]) -> None:
    from rich.live import Live
    from rich.panel import Panel

    with Live(refresh_per_second=4) as live:
        while True:
            answer = look()
            mode = answer.get("mode", "unknown")
            colour = {"normal": "green", "degraded": "red"}.get(mode, "yellow")
            lines = [
                *health_lines(answer),
                *(f"missing: {name}: {why}" for name, why in answer["missing"].items()),
            ]
            live.update(Panel("\n".join(lines), title=f"ggen: {mode}", border_style=colour))
            time.sleep(_EVERY_S)


def _lines(look: Callable[[], dict[str, Any]], as_json: bool) -> None:
    former = None
    while True:
        answer = look()
        known = {name: answer.get(name) for name in _SHOWN if name != "lease_s"}
        known["troubles"] = [trouble["name"] for trouble in answer.get("troubles", ())]
        if known != former:
            show(answer, as_json, "  ".join(health_lines(answer)) or str(answer["missing"]))
            sys.stdout.flush()
        former = known
        time.sleep(_EVERY_S)
