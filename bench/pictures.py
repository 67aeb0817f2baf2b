"""A page with a picture of how latency follows the rate: plain HTML and SVG, nothing to load."""

import html
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 300, 60, 40
_COLOURS = {"p50_ms": "#2a7", "p99_ms": "#b50", "max_ms": "#888"}


def page(told: dict[str, Any]) -> str:
    """The page of one run of ``make load``."""
    machine = ", ".join(f"{name} {value}" for name, value in told["machine"].items())
    rows = [*told["steps"], {**told["burst"], "per_s": f"burst {told['burst']['per_s']:g}"}]
    rows.append(
        {**told["after_the_burst"], "per_s": f"after: {told['after_the_burst']['per_s']:g}"}
    )
    knee = told["knee_per_s"]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Load</title>"
        "<style>body{font:15px sans-serif;max-width:50em;margin:2em auto}"
        "td,th{padding:.2em .8em;text-align:right}</style>"
        f"<h1>Latency against arrival rate</h1><p>{html.escape(machine)}</p>"
        f"<p>Open model, latency from the moment of arrival. Knee: "
        f"{f'{knee:g} a second' if knee else 'below the first step'}.</p>"
        f"{chart(told['steps'])}{_table(rows)}"
        f"<p>During the burst and after it another tenant's limit was scaled: "
        f"{html.escape(', '.join(told['scaled_meanwhile']) or 'it was not')}.</p></html>\n"
    )


def draw(page: Path) -> None:
    """The page as a PNG beside it, where Chromium is at hand."""
    chromium = shutil.which("chromium")
    if chromium:
        picture = f"--screenshot={page.with_suffix('.png').absolute()}"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=860,820"]
        command = [chromium, *options, picture, page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def chart(steps: list[dict[str, Any]]) -> str:
    """The steps as three lines, latency on a logarithmic scale."""
    rates = [step["per_s"] for step in steps]
    highest = max(10.0, *(step["max_ms"] for step in steps))
    top = 10 ** math.ceil(math.log10(highest))

    def place(rate: float, latency_ms: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 20) * rate / max(rates)
        share = math.log10(max(1.0, latency_ms)) / math.log10(top)
        return f"{x:.1f},{(_HEIGHT - _BOTTOM) * (1 - share) + 10:.1f}"

    lines = [
        f"<polyline fill='none' stroke='{colour}' stroke-width='2' points='"
        + " ".join(place(step["per_s"], step[name]) for step in steps)
        + f"'/><text x='{_LEFT + 10}' y='{24 + 18 * n}' fill='{colour}'>{name[:-3]}</text>"
        for n, (name, colour) in enumerate(_COLOURS.items())
    ]
    ticks = [10**n for n in range(round(math.log10(top)) + 1)]
    scale = [
        f"<text x='4' y='{place(0, tick).split(',')[1]}' font-size='12'>{tick} ms</text>"
        for tick in ticks
    ]
    foot = f"y='{_HEIGHT - 8}' font-size='12'"
    below = [f"<text x='{place(r, 1).split(',')[0]}' {foot}>{r:g}/s</text>" for r in rates]
    return f"<svg width='{_WIDTH}' height='{_HEIGHT}'>{''.join([*lines, *scale, *below])}</svg>"


def _table(rows: list[dict[str, Any]]) -> str:
    names = ("per_s", "arrivals", "accepted", "refused", "unanswered", "p50_ms", "p99_ms", "max_ms")
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{lines}</table>"
