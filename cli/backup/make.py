"""``ggen backup``: one consistent copy of the embedded stores, while the stack runs.

The order makes it consistent. What waits in the spool is copied first: a commit that leaves it
meanwhile is in the store by then, and one that is in both lands once. Then the store, at one
moment. Then the objects, which are created once and never change. A checkpoint that was signed
after that moment is left out: the copy is a whole ledger that ends there.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapters import wiring
from adapters.local import copies
from cli.backup import keys
from cli.backup.folder import DOCUMENTS, Manifest, copy_file, digest, files, sync
from cli.output import counting
from cli.stores import opened
from config.settings import Settings, load
from governor.errors import InputError, OutageError
from governor.paths import seal_path
from governor.times import timestamp
from ports.documents import Documents
from tasks.ledgers.known import ledgers
from tasks.ledgers.stored_log import BrokenLogError, StoredLog

_SCRATCH = ".scratch"
_SPOOLED = "spool/"
_MIRROR = re.compile(r"checkpoints/([^/]+)/([0-9]{12})")


def backup(
    folder: Path, keys_file: Path | None, passphrase_file: Path | None
) -> tuple[dict[str, Any], str]:
    """Make a copy in a new folder below ``folder``, and the keys apart where a file is named.

    Raises:
        InputError: the stores are not embedded, or the keys' file is there already.
        OutageError: a store cannot be read, or the target not be written. No copy is left.
    """
    settings = load()
    store = wiring.documents_file(settings)
    if store is None:
        raise InputError(
            "not-embedded",
            f"Documents lie in {settings.documents_url}, which has copies of its own: see "
            "docs/backup.md. Nothing was copied",
        )
    ports = opened()
    made_at = timestamp(ports.clock.now())
    name = f"ggen-{made_at[:19].replace(':', '')}Z"
    part = folder / f".{name}.part"
    try:
        part.mkdir(parents=True, mode=0o700)
        manifest = _fill(part, settings, store, made_at)
        sealed_keys = keys.seal(settings, keys_file, passphrase_file) if keys_file else None
        part.rename(folder / name)
        sync(folder)
    except OSError as error:
        raise OutageError(
            "not-copied", f"{error.filename or folder}: {error.strerror}; no copy was made"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    size = sum(path.stat().st_size for _, path in files(folder / name))
    receipts = sum(each["receipts"] for each in manifest.ledgers.values())
    value = {
        "folder": str(folder / name),
        "made_at": made_at,
        "size_bytes": size,
        "ledgers": len(manifest.ledgers),
        "sealed_receipts": receipts,
        "keys": str(sealed_keys) if sealed_keys else None,
        "broken": manifest.broken,
        "not_copied": manifest.not_copied,
    }
    text = (
        f"{folder / name}: {receipts} sealed receipts of {len(manifest.ledgers)} ledgers, "
        f"{size / 2**20:.1f} MiB, as of {made_at}\n"
    )
    for account_id, fault in manifest.broken.items():
        text += f"the ledger of {account_id} is broken, and was copied as it is: {fault}\n"
    for kind, where in manifest.not_copied.items():
        text += f"not copied: {kind} in {where}, which has copies of its own\n"
    if sealed_keys:
        return value, text + f"keys and secrets: {sealed_keys}. Keep them in another place"
    return value, text + "keys and secrets are not in it: --keys FILE copies them apart"


def _fill(part: Path, settings: Settings, store: Path, made_at: str) -> Manifest:
    folders = wiring.object_folders(settings)
    with counting("files copied") as count:
        _copy(folders, part, lambda name: name.startswith(_SPOOLED), count)
        copies.snapshot(store, part / DOCUMENTS)
        copied = wiring.documents_in(part / DOCUMENTS)
        try:
            _copy(folders, part, lambda name: _is_of(copied, name), count)
            sealed, broken = _ledgers(settings, copied)
        finally:
            copied.close()
    sums = {name: digest(path) for name, path in files(part)}
    manifest = Manifest(
        version("ggen-governor"),
        made_at,
        settings.ledger_origin,
        sealed,
        sums,
        broken,
        wiring.objects_elsewhere(settings),
    )
    manifest.write(part)
    sync(part)
    return manifest


def _copy(
    folders: dict[str, Path],
    part: Path,
    is_wanted: Callable[[str], bool],
    count: Callable[[int], None],
) -> None:
    copied = 0
    for kind, root in folders.items():
        for name, path in files(root):
            if not name.startswith(_SCRATCH) and is_wanted(name):
                copied += copy_file(path, part / kind / name)
                count(copied)


def _is_of(copied: Documents, name: str) -> bool:
    """Whether an object belongs to the copied store: a checkpoint only with its seal."""
    if name.startswith(_SPOOLED):
        return False  # what was there before the store's moment was copied already
    found = _MIRROR.fullmatch(name)
    return not found or copied.get(seal_path(found[1], found[2])) is not None


def _ledgers(
    settings: Settings, copied: Documents
) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """The newest seal of each ledger of the copy; and of those that are broken, why."""
    ports = dataclasses.replace(wiring.open_ports(settings), documents=copied)
    found, broken = dict[str, dict[str, int]](), dict[str, str]()
    for account_id in ledgers(ports):
        try:
            last = StoredLog.of(ports, account_id).newest_signed()
        except BrokenLogError as error:
            broken[account_id] = error.fault
            continue
        if last:
            found[account_id] = {"seals": last.number, "receipts": last.tree_size}
    return found, broken
