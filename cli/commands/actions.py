"""The commands of actions: ``ggen actions``."""

import getpass
from typing import Annotated, Any

import typer

from cli.lists import After
from cli.output import CUSTOMERS, AccountOption, Json, action_line, show, summary
from governor.fsm import ActionState

ActionId = Annotated[str, typer.Argument(help="An action's id, or a beginning that no other has.")]

_BAR = 20
"""Columns of the bar of the longest queue."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``ggen``."""
    actions = typer.Typer(help="Actions: signals acted upon.", no_args_is_help=True)
    actions.command("list")(list_actions)
    actions.command("show")(show_action)
    actions.command("retry-rollback")(retry_rollback)
    actions.command("resolve")(resolve)
    app.add_typer(actions, name="actions", rich_help_panel=CUSTOMERS)
    app.command("queue", rich_help_panel=CUSTOMERS)(queue)


def queue(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many tenants.")] = 20,
    as_json: Json = False,
) -> None:
    """Show which tenants' actions wait for a worker: how many, and the age of the oldest."""
    depth, longest = _ports().dispatch.queues(limit)
    rows = [
        {"account_id": q.account_id, "depth": q.depth, "oldest_s": round(q.oldest_s, 1)}
        for q in longest
    ]
    most = max((q.depth for q in longest), default=1)
    head = [f"{'waiting':>8}  {'oldest':>9}  {'':<{_BAR}}  account"] if longest else []
    lines = [
        f"{q.depth:>8}  {q.oldest_s:>7.1f} s  {'█' * -(-_BAR * q.depth // most):<{_BAR}}  "
        f"{q.account_id}"
        for q in longest
    ]
    text = "\n".join([f"{depth} actions wait", *head, *lines])
    show({"depth": depth, "longest": rows}, as_json, text)


def list_actions(
    account_id: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    state: Annotated[ActionState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List actions, newest first. For --after name the account."""
    from cli import lists
    from governor.errors import InputError
    from tasks.actions import operators

    ports = _ports()
    if after and not account_id:
        raise InputError("no-account", "an action is its tenant's: --after needs --account-id")
    collection = f"tenants/{account_id}/actions"
    place = lists.place_of(ports.documents, collection, after, "action", "accepted_at")
    found = operators.listed(ports, account_id, state=state, limit=limit, after=place)
    headers = ("action", "accepted", "state", "account", "signal", "error", "queue", "run")
    rows = [
        (
            *(a.action_id, a.accepted_at[:19], a.state, a.account_id, a.signal_type),
            *(a.error_code, _ms(a.queue_ms), _ms(a.run_ms)),
        )
        for a in found
    ]
    more = lists.next_page([a.action_id for a in found], limit)
    text = lists.table(headers, rows, more=more) if found else "no actions"
    show([action.document() for action in found], as_json, text)


def _ms(value: int | None) -> str | None:
    return None if value is None else f"{value} ms"


def _whole(ports: Any, account_id: str, given: str) -> str:
    """The whole id of an action."""
    from cli import lists

    return lists.id_of(ports.documents, f"tenants/{account_id}/actions", given, "action")


def show_action(action_id: ActionId, account_id: AccountOption, as_json: Json = False) -> None:
    """Show an action: its state, how long it took, and its receipts."""
    from tasks.actions import operators

    ports = _ports()
    action = operators.found(ports, account_id, _whole(ports, account_id, action_id))
    told = operators.receipts(ports, action)
    lines = [action_line(action.document())]
    lines.append(
        f"    signal {action.signal_id} ({action.signal_type}) for {action.entitlement_id}"
    )
    lines.append(
        f"    handler {action.handler}, {action.timeout_ms} ms, accepted {action.accepted_at}"
    )
    if action.error_code:
        lines.append(f"    {action.error_code}: {action.error_detail}")
    if action.retry_at:
        lines.append(
            f"    rollback failed {action.rollback_attempts} times, next {action.retry_at}"
        )
    lines += [f"    {summary(receipt)}" for receipt in told]
    show({**action.document(), "receipts": told}, as_json, "\n".join(lines))


def retry_rollback(action_id: ActionId, account_id: AccountOption, as_json: Json = False) -> None:
    """Have a rollback that failed tried again now."""
    from tasks.actions import operators

    ports = _ports()
    whole = _whole(ports, account_id, action_id)
    action = operators.retry_rollback(ports, account_id, whole)
    shown = f"ggen actions show {whole} --account-id {account_id}"
    text = f"the rollback is due now, and is taken up within seconds. See: {shown}"
    show(action.document(), as_json, text)


def resolve(
    action_id: ActionId,
    account_id: AccountOption,
    reason: Annotated[str, typer.Option(help="What was done by hand; it stands in the receipt.")],
    operator: Annotated[str | None, typer.Option(help="Who; else your login.")] = None,
    as_json: Json = False,
) -> None:
    """Say that a rollback that keeps failing was done by hand; it is not tried again."""
    from tasks.actions import operators

    who = operator or getpass.getuser()
    ports = _ports()
    action = operators.resolve(ports, account_id, _whole(ports, account_id, action_id), who, reason)
    text = f"{action.action_id} is {action.state} and resolved; its rollback is not tried again"
    show(action.document(), as_json, text)


def _ports() -> Any:
    from cli.stores import opened

    return opened()
