"""One client of the outside interface (D22): what a marketplace, a tenant and an operator send.

Commands, measurements and tests all drive a stack with it.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Self

import httpx
from standardwebhooks.webhooks import Webhook

from adapters.local.secret_files import SecretFiles
from adapters.local.waiting import until
from adapters.wiring import open_ports
from config.settings import Settings
from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.fsm import ActionState
from governor.records import SYSTEM_ACCOUNT
from ingress.signature import sign


class Client:
    """One HTTP connection to an ingress, and the secrets of its state directory.

    ``url`` is where the ingress answers, if not where the settings say.
    """

    def __init__(self, settings: Settings, url: str = "", *, timeout_s: float = 15) -> None:
        self.settings = settings
        self.secrets = SecretFiles(settings.secrets_dir)
        self.http = httpx.Client(
            base_url=url or settings.local_url, timeout=timeout_s, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def webhook_request(
        self,
        event: Mapping[str, Any] | bytes,
        *,
        secret: str | None = None,
        standard: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        """The delivery of an event as the marketplace makes it; the newest secret signs it."""
        body, secret = _body(event), secret or self.secrets.webhook_secrets()[0]
        signed = {"X-Entitlement-Signature": sign(body, secret)}
        if standard:
            signed = _standard_headers(body, secret)
        signed.update(headers or {})
        return self._request("POST", "/v1/webhooks/marketplace", body, signed)

    def post_webhook(self, event: Mapping[str, Any] | bytes, **how: Any) -> httpx.Response:
        """Deliver an event; ``how`` as for ``webhook_request``."""
        return self._send(self.webhook_request(event, **how))

    def post_signal(self, account_id: str, signal: Mapping[str, Any] | bytes) -> httpx.Response:
        """Deliver a signal as the tenant would, signed with its key."""
        body = _body(signal)
        headers = {"X-Signature": sign(body, self.secrets.published_tenant_key(account_id))}
        return self._send(self._request("POST", f"/v1/tenants/{account_id}/signals", body, headers))

    def post_policy(self, policy: Mapping[str, Any]) -> httpx.Response:
        """Bring a policy into force, signed as who may do so."""
        body = _body({"new_policy": policy, "policy_version": policy["policy_version"]})
        headers = {"X-Signature": sign(body, self.secrets.policy_secrets()[0])}
        return self._send(self._request("POST", "/v1/policies", body, headers))

    def publish_signal(self, account_id: str, signal: Mapping[str, Any]) -> str:
        """Put a signal on the tenant's topic instead; the message's id."""
        return open_ports(self.settings).signals.publish(account_id, _body(signal))

    def read(self, path: str, **query: Any) -> Any:
        """A JSON read with the API's token.

        Raises:
            GovernorError: of the family that the answer's status maps to.
        """
        headers = {"Authorization": f"Bearer {self.secrets.api_token()}"}
        wanted = {name: value for name, value in query.items() if value is not None}
        return checked(self._send(self._request("GET", path, b"", headers, wanted))).json()

    def receipts(self, account_id: str, **query: Any) -> list[dict[str, Any]]:
        """A page of an account's receipts, newest first."""
        page = self.read(f"/v1/tenants/{account_id}/receipts", **query)
        items: list[dict[str, Any]] = page["items"]
        return items

    def knows(self, account_id: str) -> bool:
        """Whether there is, or was, anything of an account."""
        if account_id == SYSTEM_ACCOUNT:
            return True
        try:
            self.read(f"/v1/tenants/{account_id}")
        except InputError as error:
            if error.code != "not-found":
                raise
            return bool(self.receipts(account_id, limit=1))
        return True

    def wait_action(self, location: str, within_s: float = 30.0) -> dict[str, Any]:
        """The action once it ended. Raises OutageError when it does not end in time."""

        def ended() -> dict[str, Any]:
            action: dict[str, Any] = self.read(location)
            rests = action["state"] == ActionState.ROLLBACK_FAILED  # its undo is tried again
            return action if rests or action["ended_at"] else {}

        try:
            return until(ended, within_s, every_s=0.005)
        except TimeoutError:
            raise OutageError("still-running", f"{location} has not ended") from None

    def _request(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, Any] | None = None,
    ) -> httpx.Request:
        headers = {"Content-Type": "application/json", **headers}
        return self.http.build_request(method, path, content=body, headers=headers, params=query)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return self.http.send(request)
        except httpx.HTTPError as error:
            raise OutageError(
                "no-answer",
                f"nothing answers at {self.http.base_url} ({type(error).__name__}): the "
                "stack is starting, or in trouble. See: ggen status",
            ) from error


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer if it is a success.

    Raises:
        GovernorError: of the family that its status maps to, with the problem's own detail.
    """
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        code, detail = problem["type"].rpartition(":")[2], problem["detail"]
    except (ValueError, KeyError):
        code, detail = "bad-answer", f"HTTP {answer.status_code}: {answer.text[:200]}"
    of_status: dict[int, type[GovernorError]] = {
        403: DeniedError,
        429: DeniedError,
        409: ConflictError,
        503: OutageError,
    }
    otherwise = InputError if answer.status_code < 500 else GovernorError
    raise of_status.get(answer.status_code, otherwise)(code, detail)


def new_id(prefix: str) -> str:
    """A new random id."""
    return f"{prefix}-{secrets.token_hex(8)}"


def _body(value: Mapping[str, Any] | bytes) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def _standard_headers(body: bytes, secret: str) -> dict[str, str]:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(int(time.time()), UTC)  # noqa: TID251  # the sender's own clock
    message_id = new_id("msg")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
