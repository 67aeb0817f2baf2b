"""Secrets in files, mode 0600, reloaded when they change (D22)."""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from adapters.local.private_files import (
    PrivateFiles,
    SecretError,
    first_line,
    numbered,
    replace,
    unreadable,
    write_once,
)

_MIN_WEBHOOK_CHARS = 16


class SecretFiles:
    """See ``ports.secrets.Secrets`` for what it promises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = PrivateFiles()

    def create_missing(self) -> None:
        """Make every secret that is not there yet. Never touches one that is.

        Raises:
            OutageError: the folder cannot be written.
        """
        token = secrets.token_urlsafe
        try:
            for folder in (self._folder, self._folder / "tenants"):
                if not folder.is_dir():  # one that is there may be mounted read-only
                    folder.mkdir(parents=True, mode=0o700)
            for name, make in {
                "webhook.key": lambda: _whsec(os.urandom(32)),
                "policy.key": lambda: _whsec(os.urandom(32)),
                "master.key": lambda: os.urandom(32).hex(),
                "api.token": lambda: token(32),
                "push.token": lambda: token(32),
                "monitoring.token": lambda: token(32),
                "flower.password": lambda: token(24),
                "flower.cookie": lambda: token(32),
                "valkey.password": lambda: token(32),
            }.items():
                write_once(self._folder / name, make)
        except OSError as error:
            raise unreadable(Path(error.filename or self._folder), error) from error

    def webhook_secrets(self) -> Sequence[str]:
        return self._files.read(self._folder / "webhook.key", _webhook_secrets)

    def policy_secrets(self) -> Sequence[str]:
        return self._files.read(self._folder / "policy.key", _webhook_secrets)

    def action_secrets(self, sku_id: str, plan_type: str) -> Sequence[str]:
        path = self.action_secrets_file(sku_id, plan_type)
        if path.exists():
            return self._files.read(path, _action_secrets)
        master = self._files.read(self._folder / "master.key", _hex_32)
        name = f"actions/{sku_id}~{plan_type}".encode()
        return [_whsec(hmac.new(master, name, hashlib.sha256).digest())]

    def action_secrets_file(self, sku_id: str, plan_type: str) -> Path:
        """Where an operator may put other secrets for a plan's requests, a line each."""
        return self._folder / "actions" / f"{sku_id}~{plan_type}.key"

    def rotate_action_secret(self, sku_id: str, plan_type: str) -> None:
        """Sign with a new secret from now on, and with the one before it, too.

        Raises:
            OutageError: the file cannot be written; nothing was changed.
        """
        path = self.action_secrets_file(sku_id, plan_type)
        before = self.action_secrets(sku_id, plan_type)[0]
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            replace(path, f"{_whsec(os.urandom(32))}\n{before}")
        except OSError as error:
            raise unreadable(path, error) from error

    def tenant_key(self, account_id: str, generation: int = 1) -> str:
        master = self._files.read(self._folder / "master.key", _hex_32)
        name = account_id if generation == 1 else f"{account_id}/{generation}"
        return hmac.new(master, b"tenant/" + name.encode(), hashlib.sha256).hexdigest()

    def published_tenant_key(self, account_id: str) -> str:
        """The key as its owner reads it; before a subscription that of the first governor."""
        path = self._folder / "tenants" / f"{account_id}.key"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return self.tenant_key(account_id)
        except OSError as error:
            raise unreadable(path, error) from error

    def publish_tenant_key(self, account_id: str, generation: int = 1) -> None:
        path = self._folder / "tenants" / f"{account_id}.key"
        key = self.tenant_key(account_id, generation)
        try:
            if path.exists() and path.read_text().strip() != key:
                path.unlink()  # of a former governor, or another master secret: of no use
            write_once(path, lambda: key)
        except OSError as error:
            raise unreadable(self._folder / "tenants", error) from error

    def withdraw_tenant_key(self, account_id: str) -> None:
        path = self._folder / "tenants" / f"{account_id}.key"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unreadable(path, error) from error

    def api_token(self) -> str:
        return self.read("api.token")

    def monitoring_token(self) -> str:
        return self.read("monitoring.token")

    def push_token(self) -> str:
        return self.read("push.token")

    def alert_urls(self) -> Sequence[str]:
        path = self._folder / "alert.urls"
        return self._files.read(path, _addresses) if path.exists() else []

    def read(self, name: str) -> str:
        """A secret of one line."""
        return self._files.read(self._folder / name, first_line)


def _webhook_secrets(text: str) -> list[str]:
    found = numbered(text)
    for number, line in found:
        if len(line) < _MIN_WEBHOOK_CHARS:
            raise SecretError(
                f"line {number} is shorter than {_MIN_WEBHOOK_CHARS} characters; put # before a "
                "comment"
            )
        if line.startswith("whsec_") and not _is_long_base64(line.removeprefix("whsec_")):
            raise SecretError(f"line {number}: after whsec_ come at least 16 bytes in base64")
    return [line for _, line in found]


def _action_secrets(text: str) -> list[str]:
    found = _webhook_secrets(text)
    if not all(line.startswith("whsec_") for line in found):
        raise SecretError("each line is a secret of Standard Webhooks, whsec_…")
    return found


def _whsec(raw: bytes) -> str:
    return "whsec_" + base64.b64encode(raw).decode()


def _is_long_base64(encoded: str) -> bool:
    try:
        return len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)) >= 16
    except ValueError:
        return False


def _addresses(text: str) -> list[str]:
    found = [line.strip() for line in text.splitlines()]
    return list(dict.fromkeys(line for line in found if line and not line.startswith("#")))


def _hex_32(text: str) -> bytes:
    try:
        value = bytes.fromhex(first_line(text))
    except ValueError:
        value = b""
    if len(value) < 32:
        raise SecretError("it must be at least 32 bytes in hexadecimal")
    return value
