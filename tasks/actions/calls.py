"""Actions by HTTP: a policy names two URLs where another names a handler.

Each request is signed (standardwebhooks.com), and has the action's id as its ``Idempotency-Key``.
The second one, to undo, has the same key. It says that the first must have no effect, even where
that comes later or is still at work.
"""

import re
from typing import Any

from pydantic import JsonValue, RootModel
from standardwebhooks.webhooks import Webhook

from ggen_governor.handlers import ActionContext, Handler, registered
from governor.actions import MAX_RESULT_BYTES, Action
from governor.errors import (
    ActionError,
    InputError,
    RecoverableError,
    RejectedError,
    UnrecoverableError,
)
from ledger import canonical
from ports import Ports
from ports.calls import Answer

_MOST_BYTES = 2 * MAX_RESULT_BYTES
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Anything(RootModel[dict[str, JsonValue]]):
    """Its receiver knows what a payload has to be."""


def handler_of(ports: Ports, action: Action) -> Handler[Any] | None:
    """What carries an action out and undoes it; None where this process has no such handler."""
    if action.execute_url is None:
        return registered().get(action.handler)
    execute_url, rollback_url = action.execute_url, action.rollback_url

    def execute(context: ActionContext, payload: _Anything) -> JsonValue:
        told: dict[str, JsonValue] = {"kind": "execute", "payload": payload.root}
        return _call(ports, action, context, execute_url, action.action_id, told)

    def undo(context: ActionContext, payload: _Anything) -> None:
        told: dict[str, JsonValue] = {
            "kind": "rollback",
            "payload": payload.root,
            "result": context.result,
            "execute_must_have_no_effect": True,
        }
        _call(ports, action, context, str(rollback_url), f"{action.action_id}.rollback", told)

    return Handler(
        action.handler, _Anything, execute, undo if rollback_url else None, declares_undo=True
    )


def _call(
    ports: Ports,
    action: Action,
    context: ActionContext,
    url: str,
    message_id: str,
    told: dict[str, JsonValue],
) -> JsonValue:
    """What the receiver hands on for the rollback."""
    named = {
        "action_id": action.action_id,
        "account_id": action.account_id,
        "entitlement_id": action.entitlement_id,
        "sku_id": action.sku_id,
        "signal_id": action.signal_id,
        "signal_type": action.signal_type,
    }
    body = canonical.dumps({**named, **told})
    now = ports.clock.now()
    secrets = ports.secrets.action_secrets(action.sku_id, action.plan_type or "")
    text = body.decode()
    within_s = context.remaining_s()
    headers = {
        "content-type": "application/json",
        "user-agent": "ggen-governor",
        "idempotency-key": action.action_id,
        "x-deadline-ms": str(round(within_s * 1000)),
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(s).sign(message_id, now, text) for s in secrets),
    }
    answer = ports.calls.post(url, headers, body, within_s=within_s, most_bytes=_MOST_BYTES)
    return _result(answer)


def _result(answer: Answer) -> JsonValue:
    told = _told(answer)
    if 200 <= answer.status < 300:
        if answer.is_cut:
            raise ActionError("ANSWER_TOO_LARGE", f"an answer has at most {_MOST_BYTES} bytes")
        return told.get("result")
    if 300 <= answer.status < 400:
        raise ActionError("REDIRECT_REFUSED", f"it answered {answer.status}; none is followed")
    code = told.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else f"HTTP_{answer.status}"
    detail = str(told.get("detail") or f"it answered {answer.status}")
    match told.get("recoverable"):
        case True:
            raise RecoverableError(code, detail)
        case _ if answer.status in (400, 422):
            raise RejectedError(code, detail)
        case False:
            raise UnrecoverableError(code, detail)
        case _:
            raise ActionError(code, detail)


def _told(answer: Answer) -> dict[str, Any]:
    """The object an answer holds; whatever else it holds says nothing."""
    try:
        value = canonical.loads(answer.body)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}
