"""``ggen demo``: the whole story on a stack of its own, watched live and verified."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.local.system import free_ports
from adapters.wiring import open_ports
from cli.audit import verify_ledger
from cli.demo.story import ACCOUNT, SCENES, Told, UnexpectedError
from cli.output import summary
from cli.stack import supervisor
from config.settings import Settings
from governor.errors import GovernorError
from governor.records import SYSTEM_ACCOUNT
from ingress.client import Client

Played = list[tuple[str, Told]]


def demo(as_json: bool) -> int:
    """Play the story; 0 when everything came as it should and every receipt is valid."""
    teller = _Teller(as_json or not sys.stdout.isatty())
    folder = Path(tempfile.mkdtemp(prefix="ggen-demo-"))
    settings = _settings(folder)
    # What a killed program leaves in its folder for temporary files goes with the demo's own.
    os.environ["TMPDIR"] = tempfile.mkdtemp(dir=folder)  # noqa: TID251  # no setting of ours
    played: Played = []
    faults: list[str] = []
    with supervisor.terminating():
        try:
            with teller.live("starting the stack"), supervisor.running(settings):
                _play(settings, teller, played)
                faults += _verify(settings, teller)
                teller.stage("stopping everything")
        except (UnexpectedError, GovernorError) as error:
            faults.append(str(error))
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder)
            teller.say("interrupted; everything was stopped and removed")
            raise
    teller.table(played, faults)
    if faults:
        teller.say(f"the state is kept for a look: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _play(settings: Settings, teller: "_Teller", played: Played) -> None:
    memory: dict[str, Any] = {}
    seen: set[str] = set()
    with Client(settings) as client:
        for scene in SCENES:
            teller.stage(scene.title)
            played.append((scene.title, scene.play(client, memory)))
            for account_id in (SYSTEM_ACCOUNT, ACCOUNT):
                for fields in reversed(client.receipts(account_id, limit=1000)):
                    if fields["receipt_id"] not in seen:
                        seen.add(fields["receipt_id"])
                        teller.receipt(fields)


def _verify(settings: Settings, teller: "_Teller") -> list[str]:
    """Have everything sealed, and judge it as ``ggen verify-ledger`` does."""
    teller.stage("verifying every receipt")
    ports = open_ports(settings)
    checked, faults = 0, []
    for account_id in (ACCOUNT, SYSTEM_ACCOUNT):
        verified = verify_ledger.verify_all(ports, settings, account_id)
        faults += [f"{f.subject}: {f.check}: {f.fault}" for f in verified.report.findings]
        if verified.report.unsealed:
            faults.append(f"{verified.report.unsealed} receipts of {account_id} are not sealed")
        checked += verified.report.sealed
    ports.documents.close()
    teller.checked = checked
    return faults


class _Teller:
    """Tells a person with a live display, or a program with a JSON line for each receipt."""

    def __init__(self, plain: bool) -> None:
        self._plain = plain
        self._console = Console(stderr=plain, highlight=False)
        self._progress: Progress | None = None
        self._started = time.monotonic()
        self.checked = 0

    @contextmanager
    def live(self, first: str) -> Iterator[None]:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with ExitStack() as open_displays:
            if not self._plain:
                progress = Progress(*columns, console=self._console, transient=True)
                self._progress = open_displays.enter_context(progress)
                progress.add_task(first)
            yield
        self._progress = None

    def stage(self, title: str) -> None:
        if self._progress:
            self._console.print(f"[bold]{title}[/bold]")
            self._progress.update(self._progress.task_ids[0], description=title, refresh=True)

    def receipt(self, fields: dict[str, Any]) -> None:
        if self._plain:
            print(json.dumps(fields, separators=(",", ":")), flush=True)
        else:
            self._console.print(summary(fields), overflow="ellipsis", no_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text)

    def table(self, played: Played, faults: list[str]) -> None:
        table = Table("what happened", "what came of it", "took", "the spec asks", "SLI")
        for title, told in played:
            took = "" if told.measured_ms is None else _milliseconds(told.measured_ms)
            is_met = told.sli_ms is None or (told.measured_ms or 0) <= told.sli_ms
            verdict = ("met" if is_met else "missed") if told.sli else ""
            table.add_row(title, told.outcome, took, told.sli, verdict)
        self._console.print(table)
        elapsed_s = time.monotonic() - self._started
        if faults:
            self._console.print("\n".join(["NOT AS IT SHOULD BE:", *faults]), markup=False)
            return
        self._console.print(
            f"{self.checked} receipts, each valid (immutability, ordering, integrity, "
            f"completeness) and sealed in a signed log. {elapsed_s:.1f} s in all; nothing is left "
            "running."
        )


def _milliseconds(measured_ms: float) -> str:
    return f"{measured_ms:.1f} ms" if measured_ms >= 1 else "< 1 ms"


def _settings(folder: Path) -> Settings:
    """Nothing of yours is touched: the stores your settings name are used on emulators only."""
    http, flower, valkey = free_ports(3)
    own = Settings(
        state_dir=folder,
        http_port=http,
        flower_port=flower,
        valkey_port=valkey,
        tally_interval_s=2,
        actions_concurrency=4,
        memory_url="",
        broker_url="",
        push_url="",
        push_audience="",
        push_service_account="",
    )
    if own.is_emulated:
        return own
    embedded = {"documents_url": "", "objects_url": "", "signals_url": ""}
    return own.model_copy(update={**embedded, "push_without_token": False})
