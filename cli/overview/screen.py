"""The overview on one screen: 80 columns are enough, and 200 are used."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.overview.problems import Problem

_WIDE = 160
_MOST_PROBLEMS = 6
_COLOURS = {"normal": "green", "degraded": "red"}


def text(answer: Mapping[str, Any], width: int = 80) -> str:
    """The screen as plain text, for a pipe or a file."""
    console = Console(file=io.StringIO(), width=width, color_system=None, emoji=False)
    console.print(screen(answer, width))
    assert isinstance(console.file, io.StringIO)  # noqa: S101
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def panel(answer: Mapping[str, Any], width: int) -> Panel:
    """The screen in a frame that has the colour of the mode, for ``--watch``."""
    mode = str(answer.get("mode", "unknown"))
    colour = "yellow" if answer["problems"] and mode == "normal" else _COLOURS.get(mode, "yellow")
    return Panel(screen(answer, width - 4), title=f"ggen: {mode}", border_style=colour)


def screen(answer: Mapping[str, Any], width: int) -> RenderableType:
    """The parts, a line each, and the problems."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold", no_wrap=True)
    head.add_column(overflow="fold")
    for name, words in _lines(answer):
        head.add_row(name, Text(words))
    wrong = [Problem(**each) for each in answer["problems"]]
    if not wrong:
        return Group(head, Text(), Text("nothing is wrong", style="green"))
    shown = [_problem(each, width) for each in wrong[:_MOST_PROBLEMS]]
    rest = len(wrong) - len(shown)
    title = Text(f"{len(wrong)} wrong, worst first", style="bold red")
    more = [Text(f"and {rest} more: ggen status --json")] if rest else []
    body: Sequence[RenderableType] = shown
    if width >= _WIDE:
        body = [Columns(shown, width=width // 2 - 1)]
    return Group(head, Text(), title, *body, *more)


def span(seconds: float) -> str:
    """A time for people, in its largest whole unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _problem(problem: Problem, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    rows = asdict(problem)
    what, page = rows.pop("what"), rows.pop("page")
    for name, words in rows.items():
        grid.add_row(f"  {name}", Text(words))
    where = page if page.startswith("docs/") else f"docs/incidents.md, {page}"
    grid.add_row("  see", Text(where))
    return Group(Text(f"! {what}", style="red"), grid)


def _lines(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A name and a line for each part."""
    state = "ready" if answer["ready"] else "not ready"
    lease = f", lease {answer['lease_s']} s" if "lease_s" in answer else ""
    lines = [
        ("stack", f"{state}: {answer['state_dir']}"),
        ("version", f"{answer['version']}, mode {answer.get('mode', 'unknown')}{lease}"),
    ]
    programs = [f"{name} {span(p['up_s'])}" for name, p in answer["components"].items()]
    lines.append(("up", ", ".join(programs) or "no program here"))
    if "heard" in answer:
        lines.append(("asked", "the stores, and no ingress"))
        lines.append(("heard of", _heard(answer["heard"])))
    for name, line in _PARTS.items():
        part = answer.get(name)
        if isinstance(part, Mapping) and "unknown" in part:
            lines.append((name, f"unknown: {part['unknown']}"))
        elif part is not None:
            lines.append((name, line(part)))
    return lines


def _heard(heard: Mapping[str, Any]) -> str:
    """Programs that run elsewhere."""
    counts = [f"{count} {name}" for name, count in heard["programs"].items()]
    ago = heard["beat_ago_s"]
    beat = f"beat fired {span(ago)} ago" if ago is not None else "beat has never fired"
    children = f"{heard['children']} processes for actions"
    return f"{', '.join(counts) or 'no program'}; {children}; {beat}"


def _work(work: Mapping[str, Any]) -> str:
    oldest = f", the oldest {work['oldest_s']} s ({work['oldest_account']})"
    waiting = f"{work['waiting']} wait{oldest if work['waiting'] else ''}"
    return f"{work['in_flight']} actions in flight, {waiting}, {work['spooled']} commits spooled"


def _runs(runs: Mapping[str, Any]) -> str:
    return f"{runs['open']} open, {runs['parked']} parked, {len(runs['held'])} held up"


def _ledgers(ledgers: Mapping[str, Any]) -> str:
    broken = ", ".join(each["account_id"] for each in ledgers["broken"])
    ago = ledgers["verified_ago_s"]
    verified = f"all verified {span(ago)} ago" if ago is not None else "not verified in this day"
    held = f"BROKEN: {broken}" if broken else "no fault found"
    return f"{held}, {verified}, {ledgers['unsealed']} wait for a seal"


def _alerts(alerts: Mapping[str, Any]) -> str:
    sent = alerts["delivered"]
    last = "none was sent lately"
    if sent:
        one = sent[0]
        last = f"last {one['cause']} ({one['subject']}) to {one['to']}, {span(one['ago_s'])} ago"
    where = f"{len(alerts['addresses'])} addresses" if alerts["addresses"] else "to the log alone"
    return f"{last}; {alerts['undelivered']} undelivered; {where}"


def _policy(policy: Mapping[str, Any]) -> str:
    before, after = policy["previous_version"], policy["policy_version"]
    plan = f"{policy['sku_id']} {policy['plan_type']}"
    words = f"{plan} {before or 'none'} -> {after} at {policy['timestamp'][:19]}Z"
    if policy["operation"] != "policy_broadcast":
        return f"{words}, refused: {policy['operation']}"
    words += f", {policy['governors_updated']} governors, {policy.get('verdict', 'on trial')}"
    return f"{words}; ggen policy diff {plan} {before} {after}" if before else words


def _disk(disk: Mapping[str, Any]) -> str:
    days = disk["full_in_days"]
    when = "too young to say when it is full" if days is None else f"full in {days:.0f} days"
    return f"{disk['used_bytes'] / 2**20:.0f} MiB used, {disk['free_bytes'] >> 30} GiB free, {when}"


_PARTS = {
    "work": _work,
    "runs": _runs,
    "ledgers": _ledgers,
    "alerts": _alerts,
    "policy": _policy,
    "disk": _disk,
}
