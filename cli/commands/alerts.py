"""The commands of alerts: ``ggen alerts``."""

from typing import Annotated

import typer

from cli.output import OPERATIONS, Json, show


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    alerts = typer.Typer(help="Alerts: who is told, and what is not.", no_args_is_help=True)
    alerts.command("list")(list_undelivered)
    alerts.command("test")(send_test)
    app.add_typer(alerts, name="alerts", rich_help_panel=OPERATIONS)


def list_undelivered(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: Json = False
) -> None:
    """List alerts that were tried in vain; they are tried again."""
    from dataclasses import asdict

    from cli import lists
    from cli.stores import opened

    found = opened().outbox.undelivered(limit)
    rows = [
        (
            *(letter.alert.alert_id, letter.alert.severity, letter.alert.cause),
            *(letter.alert.account_id, letter.attempts, letter.fault),
        )
        for letter in found
    ]
    text = lists.table(("alert", "severity", "cause", "account", "tried", "fault"), rows)
    value = [asdict(letter) for letter in found]
    show(value, as_json, text if rows else "nothing waits to be delivered")


def send_test(as_json: Json = False) -> None:
    """Send an alert to every address now, and see who takes it."""
    from adapters.wiring import open_ports
    from config.settings import load
    from governor.errors import OutageError
    from ports.alerts import Alert, Letter

    settings = load()
    alerts, faults = open_ports(settings).alerts, {}
    told = Alert("test", "info", "test", "_system", "ggen alerts test", "this is only a test")
    for number, (address, kind) in enumerate(alerts.addresses().items(), 1):
        faults[f"{number} ({kind})"] = alerts.deliver([Letter(told, address)])
    lines = [f"address {name}: {fault or 'taken'}" for name, fault in faults.items()]
    where = settings.secrets_dir / "alert.urls"
    show(faults, as_json, "\n".join(lines) or f"{where} names no address: alerts are only logged")
    if any(faults.values()):
        raise OutageError("alert-not-taken", "not every address took the alert")
