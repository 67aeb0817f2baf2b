"""Keys and secrets, apart from any copy: one file, encrypted where a passphrase is given.

Scrypt (RFC 7914) makes the key from the passphrase; Fernet encrypts and authenticates.
"""

import base64
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from config.settings import Settings
from governor.errors import ConflictError, DeniedError, InputError

_PLAIN, _SEALED = b"ggen keys 1 plain\n", b"ggen keys 1 scrypt fernet\n"
_SALT_BYTES, _MIN_PASSPHRASE = 16, 12


def seal(settings: Settings, file: Path, passphrase_file: Path | None) -> Path:
    """Write the folders of keys and secrets into one new file of mode 0600.

    Raises:
        ConflictError: the file is there already; it was kept.
        InputError: the passphrase is too short, or cannot be read. Nothing was written.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for name, folder in _folders(settings).items():
            archive.add(folder, arcname=name)
    content = _PLAIN + packed.getvalue()
    if passphrase_file:
        salt = os.urandom(_SALT_BYTES)
        sealed = Fernet(_key(passphrase_file, salt)).encrypt(packed.getvalue())
        content = _SEALED + salt + sealed
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError("keys-exist", f"{file} exists and was kept; name another") from None
    with os.fdopen(fd, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    return file


def unpacked(file: Path, passphrase_file: Path | None) -> bytes:
    """The tar in a file of ``seal``.

    Raises:
        InputError: it is no such file, or it needs a passphrase and none was given.
        DeniedError: the passphrase is wrong, or the file was changed.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError("no-keys", f"cannot read {file}: {error.strerror}") from None
    if content.startswith(_PLAIN):
        return content.removeprefix(_PLAIN)
    if not content.startswith(_SEALED):
        raise InputError("no-keys", f"{file} was not made by ggen backup --keys")
    if passphrase_file is None:
        raise InputError("no-passphrase", f"{file} is encrypted: --passphrase-file")
    sealed = content.removeprefix(_SEALED)
    try:
        key = _key(passphrase_file, sealed[:_SALT_BYTES])
        return Fernet(key).decrypt(sealed[_SALT_BYTES:])
    except InvalidToken:
        raise DeniedError(
            "wrong-passphrase", f"the passphrase does not open {file}, or the file was changed"
        ) from None


def differing(settings: Settings, packed: bytes) -> list[str]:
    """The files that are here with other content than in the tar."""
    return [
        str(p)
        for p, content in _files(settings, packed)
        if p.exists() and p.read_bytes() != content
    ]


def restore(settings: Settings, packed: bytes) -> int:
    """Put back each file that is not there, whole or not at all; how many."""
    written = 0
    for target, content in _files(settings, packed):
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = target.with_name(f".{target.name}.part")
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(target)
        written += 1
    return written


def _files(settings: Settings, packed: bytes) -> Iterator[tuple[Path, bytes]]:
    """Where each file of the tar belongs, and its content; of other names there are none."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive.getmembers():
            name, _, rest = member.name.partition("/")
            folder = _folders(settings).get(name)
            content = archive.extractfile(member) if member.isfile() else None
            if folder and content and all(part not in ("", ".", "..") for part in rest.split("/")):
                yield folder / rest, content.read()


def _folders(settings: Settings) -> dict[str, Path]:
    return {"keys": settings.keys_dir, "secrets": settings.secrets_dir}


def _key(passphrase_file: Path, salt: bytes) -> bytes:
    try:
        passphrase = passphrase_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise InputError(
            "no-passphrase", f"cannot read {passphrase_file}: {error.strerror}"
        ) from None
    if len(passphrase) < _MIN_PASSPHRASE:
        raise InputError(
            "short-passphrase",
            f"a passphrase has at least {_MIN_PASSPHRASE} bytes; nothing was written",
        )
    derived = Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase)
    return base64.urlsafe_b64encode(derived)
