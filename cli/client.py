"""The commands that talk to a running stack over its outside interface (D22)."""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook

from adapters.local.secret_files import SecretFiles
from adapters.local.waiting import until
from adapters.wiring import open_ports
from cli.stack.supervisor import address
from config.settings import Settings, load
from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.records import SYSTEM_ACCOUNT
from ingress.signature import sign

_FINAL = ("complete", "failed", "rolled_back", "rollback_failed")


class Client:
    """One HTTP connection to the ingress, and the secrets to use it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load()
        self.secrets = SecretFiles(self.settings.secrets_dir)
        self._http = httpx.Client(base_url=address(self.settings), timeout=15, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post_webhook(
        self, event: Mapping[str, Any], *, secret: str | None = None, standard: bool = False
    ) -> httpx.Response:
        """Deliver an event as the marketplace would; the newest secret signs it."""
        body = json.dumps(event).encode()
        secret = secret or self.secrets.webhook_secrets()[0]
        headers = {"X-Entitlement-Signature": sign(body, secret)}
        if standard:
            headers = _standard_headers(body, secret)
        return self._send("POST", "/v1/webhooks/marketplace", body, headers)

    def post_signal(self, account_id: str, signal: Mapping[str, Any]) -> httpx.Response:
        """Deliver a signal as the tenant would, signed with its key."""
        body = json.dumps(signal).encode()
        headers = {"X-Signature": sign(body, self.secrets.tenant_key(account_id))}
        return self._send("POST", f"/v1/tenants/{account_id}/signals", body, headers)

    def publish_signal(self, account_id: str, signal: Mapping[str, Any]) -> str:
        """Put a signal on the tenant's topic instead; the message's id."""
        return open_ports(self.settings).signals.publish(account_id, json.dumps(signal).encode())

    def read(self, path: str, **query: Any) -> Any:
        """A JSON read with the API's token.

        Raises:
            GovernorError: of the family that the answer's status maps to.
        """
        headers = {"Authorization": f"Bearer {self.secrets.api_token()}"}
        wanted = {name: value for name, value in query.items() if value is not None}
        return checked(self._send("GET", path, b"", headers, wanted)).json()

    def knows(self, account_id: str) -> bool:
        """Whether there is, or was, anything of an account."""
        if account_id == SYSTEM_ACCOUNT:
            return True
        try:
            self.read(f"/v1/tenants/{account_id}")
        except InputError as error:
            if error.code != "not-found":
                raise
            return bool(self.read(f"/v1/tenants/{account_id}/receipts", limit=1)["items"])
        return True

    def wait_action(self, location: str, within_s: float = 30.0) -> dict[str, Any]:
        """The action once it ended. Raises OutageError when it does not end in time."""

        def ended() -> dict[str, Any]:
            action: dict[str, Any] = self.read(location)
            return action if action["state"] in _FINAL else {}

        try:
            return until(ended, within_s)
        except TimeoutError:
            raise OutageError("still-running", f"{location} has not ended") from None

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        headers = {**headers, "Content-Type": "application/json"}
        try:
            return self._http.request(method, path, content=body, headers=headers, params=query)
        except httpx.HTTPError as error:
            raise OutageError(
                "no-answer",
                f"nothing answers at {self._http.base_url} ({type(error).__name__}): the "
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


def _standard_headers(body: bytes, secret: str) -> dict[str, str]:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(int(time.time()), UTC)  # noqa: TID251  # the sender's own clock
    message_id = new_id("msg")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
