"""Signing keys in files: ``keys/{key_id}.pem``, ``keys/current``, and ``keys/ring.json`` (D22)."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.local.private_files import PrivateFiles, first_line, replace, unreadable, write_once
from governor.errors import InputError, OutageError
from governor.times import timestamp
from ledger.keys import ALWAYS, KeyId, KeyRing, TrustedKey, parse_ring
from ledger.receipt import Signer


class KeyFiles:
    """See ``ports.keys.Keys`` for what it promises."""

    def __init__(self, folder: Path, origin: str) -> None:
        self._folder = folder
        self._origin = origin
        self._current, self._ring = folder / "current", folder / "ring.json"
        self._files = PrivateFiles()

    def create_missing(self, now: datetime | None = None) -> None:
        """Make the first key if there is none, and list the key in use if the ring lacks it.

        It is valid from ``now`` on; by default from what the machine's clock says.

        Raises:
            OutageError: the folder cannot be written.
        """
        if self._is_whole():
            return  # also where they were mounted read-only
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._alone():
                since = ALWAYS  # of a key that was there before it was listed
                if not self._current.exists():
                    made, since = self._create(), timestamp(now or datetime.now(UTC))
                    write_once(self._current, lambda: made.key_id)
                listed = list(self.ring()) if self._ring.exists() else []
                signer = self.signer()
                if signer.key_id not in {key.key_id for key in listed}:
                    self._write([*listed, TrustedKey.of(signer.public_key, since)])
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def _is_whole(self) -> bool:
        try:
            return self.ring().find(self.signer().key_id) is not None
        except OutageError:
            return False

    def signer(self) -> Signer:
        current = self._files.read(self._current, first_line)
        return self._files.read(self._folder / f"{current}.pem", _signer)

    def ring(self) -> KeyRing:
        return self._files.read(self._ring, parse_ring).evolve(origin=self._origin)

    def rotate(self, at: datetime) -> tuple[KeyId, KeyId]:
        try:
            with self._alone():
                before, ring = self.signer(), self.ring()
                after = self._create()
                new = TrustedKey.of(after.public_key, timestamp(at))
                # Trusted before it is used; the old key ends once no process can choose it again.
                self._write([*ring, new])
                replace(self._current, after.key_id)
                self._write([_ended(key, timestamp(at)) for key in ring] + [new])
                return before.key_id, after.key_id
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def disown(self, key_id: str, leaked_at: datetime) -> None:
        try:
            with self._alone():
                ring, at = self.ring(), timestamp(leaked_at)
                key = ring.find(key_id)
                if key is None:
                    known = ", ".join(each.key_id for each in ring)
                    raise InputError(
                        "no-such-key", f"there is no key {key_id[:64]}; known: {known}"
                    )
                if key_id == self.signer().key_id:
                    raise InputError("key-in-use", f"key {key_id} is in use; rotate first")
                if at < key.valid_from or at > (key.leaked_at or at):
                    raise InputError(
                        "bad-time",
                        f"key {key_id} was in use from {key.valid_from} and "
                        f"{'leaked at ' + key.leaked_at if key.leaked_at else 'did not leak'}: the "
                        "time of a leak can only be moved back, and not before its first use. "
                        "Nothing was changed",
                    )
                self._write(
                    [each.evolve(leaked_at=at) if each.key_id == key_id else each for each in ring]
                )
        except OSError as error:
            raise unreadable(self._folder, error) from error

    def _create(self) -> Signer:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signer = Signer(key)
        write_once(self._folder / f"{signer.key_id}.pem", pem.decode)
        return signer

    def _write(self, keys: list[TrustedKey]) -> None:
        ring = KeyRing(origin=self._origin, keys=tuple(keys))
        replace(self._ring, ring.model_dump_json(indent=1, exclude_none=True))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep two commands that change keys apart."""
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _ended(key: TrustedKey, at: str) -> TrustedKey:
    return key if key.valid_until else key.evolve(valid_until=at)


def _signer(text: str) -> Signer:
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return Signer(key)
