"""``ggen drill degrade``: Runbook 4 on purpose, timed, with each event printed at once."""

import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from cli.output import OPERATIONS, Json, show
from governor.errors import ConflictError, GovernorError, InputError, OutageError
from governor.health import CHECKS_TO_DEGRADE, MAX_DRILLED_ACCOUNTS, Drill, Fault, Outage, Scope
from governor.paths import receipt_path, tenant_path
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT
from ledger.receipt import SignedReceipt, receipt_id
from ports import Ports

_LOOK_EVERY_S = 0.1
_LONGEST_S = 3600.0
_PATIENCE_S = 30.0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0}


def register(app: typer.Typer) -> None:
    """Add the command."""
    drills = typer.Typer(
        help="Outages on purpose, with receipts that say so.", no_args_is_help=True
    )
    drills.callback()(lambda: None)
    drills.command("degrade")(degrade)
    app.add_typer(drills, name="drill", rich_help_panel=OPERATIONS)


def degrade(
    lasting: Annotated[str, typer.Option("--for", help="How long it fails, as 60s or 2m.")] = "60s",
    fault: Annotated[Fault, typer.Option(help="How Documents fail.")] = Fault.REFUSE,
    tenant: Annotated[
        list[str] | None, typer.Option(help="Only for this tenant; may be given several times.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Have Documents fail, and see the system refuse, recover and receipt it, by itself."""
    from adapters.wiring import open_ports
    from config.settings import load

    settings, accounts = load(), list(dict.fromkeys(tenant or []))
    ports = open_ports(settings)
    shortest_s = CHECKS_TO_DEGRADE * settings.health_interval_s + 2 * settings.store_timeout_s + 1
    seconds = _seconds(lasting, shortest_s)
    _refuse_unless_well(ports, accounts)
    drill = Drill(drill_id=f"drill-{secrets.token_hex(6)}", fault=fault, accounts=accounts)
    story = _Story(ports, drill, seconds, as_json)
    with _under_way(ports, drill, seconds):
        result = story.play()
    show(result, as_json, "\n".join(_summary(result)))
    raise typer.Exit(0 if result["detected_s"] is not None and result["cleared"] else 1)


@dataclass
class _Story:
    """A drill as it goes: what was seen when, in seconds from its start."""

    ports: Ports
    drill: Drill
    seconds: float
    as_json: bool
    began_s: float = field(default_factory=time.monotonic)
    detected_s: float | None = None
    outage_id: str = ""

    def play(self) -> dict[str, Any]:
        """Follow it to its end. Raises OutageError where recovery is not seen in time."""
        whom = ", ".join(self.drill.accounts) or "all tenants"
        self._tell(f"Documents {self.drill.fault} for {whom}, for {self.seconds:g} s")
        failures = 0
        while self._passed_s() < self.seconds:
            known = self.ports.modes.health(self.drill.scope)
            if known.failures > failures:
                self._tell(f"health check failed, {known.failures} in a row: {known.error_code}")
            failures = known.failures
            self._note(known.is_degraded, known.outage)
            time.sleep(_LOOK_EVERY_S)
        self.ports.modes.end_drill(self.drill.drill_id)
        ended_s = self._passed_s()
        self._tell("the fault is over")
        recovered_s = self._until(lambda: not self.ports.modes.health(self.drill.scope).is_degraded)
        if self.detected_s is not None:
            self._tell("recovered: what is new is admitted again")
        self._until(lambda: not self.ports.modes.owed(self.drill.scope))
        return {
            "drill_id": self.drill.drill_id,
            "fault": self.drill.fault,
            "accounts": self.drill.accounts,
            "detected_s": self.detected_s,
            "recovered_s": round(recovered_s - ended_s, 2),
            "degraded": self._receipt("degraded_mode"),
            "cleared": self._receipt("degraded_mode_cleared"),
        }

    def _note(self, is_degraded: bool, outage: Outage | None) -> None:
        if is_degraded and self.detected_s is None:
            self.detected_s = round(self._passed_s(), 2)
            self.outage_id = outage.outage_id if outage else ""
            self._tell("degraded: all that is new is refused, and counted")

    def _until(self, holds: Any) -> float:
        while not holds():
            if self._passed_s() > self.seconds + _PATIENCE_S:
                raise OutageError(
                    "no-recovery",
                    f"no recovery within {_PATIENCE_S:g} s of the drill's end. It is still tried "
                    "every other second; see: ggen status --watch",
                )
            time.sleep(_LOOK_EVERY_S)
        return self._passed_s()

    def _receipt(self, operation: str) -> dict[str, Any] | None:
        identity = receipt_id(SYSTEM_ACCOUNT, operation, self.outage_id)
        found = self.ports.documents.get(receipt_path(SYSTEM_ACCOUNT, identity))
        return SignedReceipt.stored(found.data).fields() if found else None

    def _passed_s(self) -> float:
        return time.monotonic() - self.began_s

    def _tell(self, what: str) -> None:
        out = sys.stderr if self.as_json else sys.stdout
        print(f"{self._passed_s():6.1f} s  {what}", file=out, flush=True)


@contextmanager
def _under_way(ports: Ports, drill: Drill, seconds: float) -> Iterator[None]:
    if not ports.modes.begin_drill(drill, seconds):
        raise ConflictError("drill-under-way", "another drill goes on; nothing was changed")
    try:
        yield
    except KeyboardInterrupt:
        print("\nthe drill is over; recovery goes on by itself", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        ports.modes.end_drill(drill.drill_id)


def _refuse_unless_well(ports: Ports, accounts: list[str]) -> None:
    """A drill would hide an outage that is real."""
    if len(accounts) > MAX_DRILLED_ACCOUNTS:
        raise InputError("too-many-tenants", f"at most {MAX_DRILLED_ACCOUNTS} tenants at once")
    standing = ports.lease.standing(SYSTEM_ACCOUNT)
    known = [ports.modes.health(scope) for scope in Scope]
    if (
        standing is not Verdict.ADMITTED
        or any(k.failures or k.outage for k in known)
        or any(map(ports.modes.owed, Scope))
    ):
        raise ConflictError("not-well", "the system is not well just now; see: ggen status")
    for account_id in accounts:
        try:
            found = ports.documents.get(tenant_path(account_id))
        except GovernorError as error:
            raise InputError("bad-tenant", f"{account_id[:64]!r}: {error.detail}") from None
        if found is None:
            raise InputError("unknown-tenant", f"there is no tenant {account_id[:64]!r}")


def _seconds(text: str, shortest_s: float) -> float:
    found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]+)?)([sm]?)", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not shortest_s <= seconds <= _LONGEST_S:
        raise InputError(
            "bad-duration",
            f"--for is a number of seconds (60s) or minutes (2m), from {shortest_s:g} s, which is "
            f"how long it may take to be noticed, to {_LONGEST_S:g} s",
        )
    return seconds


def _summary(result: dict[str, Any]) -> list[str]:
    if result["detected_s"] is None:
        return ["the fault was never noticed: see the log"]
    lines = [
        f"noticed after {result['detected_s']} s (bar 35), recovered "
        f"{result['recovered_s']} s after its end (bar 10)"
    ]
    for name in ("degraded", "cleared"):
        fields = result[name]
        lines.append(
            f"{fields['operation']} {fields['receipt_id']}" if fields else f"no receipt: {name}"
        )
    if result["cleared"]:
        cleared = result["cleared"]
        lines.append(
            f"{cleared['actions_refused']} signals were refused; {cleared['downtime_seconds']} s "
            "from the first failed check to the end"
        )
    return lines
