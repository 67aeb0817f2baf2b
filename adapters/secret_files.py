"""Secrets in files, mode 0600, read anew when they change; signing keys lie beside them (D22)."""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from governor.errors import OutageError
from ledger.receipt import Signer

T = TypeVar("T")
_MAX_SECRET_BYTES = 16 * 1024


class SecretFiles:
    """See ``ports.secrets.Secrets`` for what it promises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys = folder.with_name("keys")
        self._cache: dict[Path, tuple[tuple[int, int, int], object]] = {}

    def create_missing(self) -> None:
        """Make every secret that is not there yet. Never touches one that is.

        Raises:
            OutageError: the folder cannot be written.
        """
        token = secrets.token_urlsafe
        try:
            for folder in (self._folder, self._folder / "tenants", self._keys):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name, make in {
                "webhook.key": lambda: "whsec_" + base64.b64encode(os.urandom(32)).decode(),
                "master.key": lambda: os.urandom(32).hex(),
                "api.token": lambda: token(32),
                "push.token": lambda: token(32),
                "flower.password": lambda: token(24),
                "flower.cookie": lambda: token(32),
                "valkey.password": lambda: token(32),
            }.items():
                _write_once(self._folder / name, make)
            if not (self._keys / "current").exists():
                self._create_signing_key()
        except OSError as error:
            raise _unreadable(Path(error.filename or self._folder), error) from error

    def webhook_secrets(self) -> Sequence[str]:
        return self._read(self._folder / "webhook.key", _webhook_secrets)

    def tenant_key(self, account_id: str) -> str:
        master = self._read(self._folder / "master.key", _hex_32)
        return hmac.new(master, b"tenant/" + account_id.encode(), hashlib.sha256).hexdigest()

    def publish_tenant_key(self, account_id: str) -> None:
        path, key = self._folder / "tenants" / f"{account_id}.key", self.tenant_key(account_id)
        try:
            if path.exists() and path.read_text().strip() != key:
                path.unlink()  # of another master secret: what it signs is refused
            _write_once(path, lambda: key)
        except OSError as error:
            raise _unreadable(self._folder / "tenants", error) from error

    def api_token(self) -> str:
        return self.read("api.token")

    def push_token(self) -> str:
        return self.read("push.token")

    def read(self, name: str) -> str:
        """A secret of one line."""
        return self._read(self._folder / name, _first_line)

    def signer(self) -> Signer:
        current = self._read(self._keys / "current", _first_line)
        return self._read(self._keys / f"{current}.pem", _signer)

    def public_keys(self) -> Mapping[str, Ed25519PublicKey]:
        try:
            paths = sorted(self._keys.glob("*.pem"))
        except OSError as error:
            raise _unreadable(self._keys, error) from error
        signers = [self._read(path, _signer) for path in paths]
        return {signer.key_id: signer.public_key for signer in signers}

    def _create_signing_key(self) -> None:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signer = Signer(key)
        _write_once(self._keys / f"{signer.key_id}.pem", pem.decode)
        _write_once(self._keys / "current", lambda: signer.key_id)

    def _read(self, path: Path, parse: Callable[[str], T]) -> T:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            held = self._cache.get(path)
            if held and held[0] == version:
                return held[1]  # type: ignore[return-value]  # the same parser put it there
            if status.st_size > _MAX_SECRET_BYTES:
                raise ValueError("too large")
            value = parse(path.read_text())
        except OSError as error:
            raise _unreadable(path, error) from error
        except (ValueError, IndexError, UnsupportedAlgorithm) as error:
            raise OutageError(
                "malformed-secret",
                f"{path} is malformed. Restore it from a backup; if there is none, remove it and "
                "start again: a new one is made, and whoever used the old one needs the new one",
            ) from error
        self._cache[path] = (version, value)
        return value


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("empty")
    return lines


def _first_line(text: str) -> str:
    return _lines(text)[0]


def _webhook_secrets(text: str) -> list[str]:
    lines = _lines(text)
    for line in lines:
        if line.startswith("whsec_"):
            encoded = line.removeprefix("whsec_")
            padded = encoded + "=" * (-len(encoded) % 4)
            if len(base64.b64decode(padded, validate=True)) < 16:
                raise ValueError("too short")
    return lines


def _hex_32(text: str) -> bytes:
    value = bytes.fromhex(text.strip())
    if len(value) < 32:
        raise ValueError("too short")
    return value


def _signer(text: str) -> Signer:
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return Signer(key)


def _write_once(path: Path, make: Callable[[], str]) -> None:
    """Write a new file whole or not at all; whoever is second keeps the first one's."""
    if path.exists():
        return
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(make() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):
            path.hardlink_to(scratch)
    finally:
        scratch.unlink()


def _unreadable(path: Path, error: OSError) -> OutageError:
    why = error.strerror or type(error).__name__
    return OutageError("secret-unreadable", f"cannot use {path}: {why}. Check its owner and mode")
