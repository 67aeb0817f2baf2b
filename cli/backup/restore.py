"""``ggen restore``: put a copy back, verify every ledger, and name the receipts it lacks.

Nothing is deleted: what was there is set aside. Objects that are there stay, so that checkpoints
signed after the copy are found, and no ledger is sealed on top of an older one.
"""

import getpass
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import wiring
from adapters.local import copies
from cli.audit.verify_ledger import pins_of
from cli.backup import folder, keys
from cli.output import counting
from cli.stack import supervisor
from config.settings import Settings, load
from governor.errors import ConflictError, GovernorError, InputError, OutageError
from governor.paths import mirror_name
from governor.records import SYSTEM_ACCOUNT
from governor.times import timestamp
from ledger.checkpoint import open_checkpoint
from ledger.log import seal_id
from ports import Ports
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.known import ledgers
from tasks.ledgers.report import Report
from tasks.receipts.commit import commit_once, receipt

_PROGRAMS = ("ingress", "actions", "runbooks", "health", "beat", "pump")


@dataclass(frozen=True, slots=True)
class Keys:
    """The file of keys, and what opens it."""

    file: Path | None
    passphrase_file: Path | None


def restore(copy: Path, opened_by: Keys, *, replace: bool) -> tuple[dict[str, Any], str, int]:
    """Put a copy back into this state directory; the exit code of verifying all ledgers, too.

    Raises:
        InputError: the copy or the keys cannot be used. Nothing was changed.
        ConflictError: a stack runs here, a store is here and ``replace`` was not given, or a key or
            an object is here with other content. Nothing was changed.
        OutageError: the disk does not take it. Run it again: it goes on where it stopped.
    """
    settings = load()
    store = wiring.documents_file(settings)
    if store is None:
        raise InputError(
            "not-embedded", f"Documents lie in {settings.documents_url}: see docs/backup.md"
        )
    manifest, digest = folder.read(copy)
    packed = _packed(settings, opened_by)
    if manifest.ledger_origin != settings.ledger_origin:
        raise InputError(
            "other-origin",
            f"the copy is of {manifest.ledger_origin}, not {settings.ledger_origin}: set "
            "GGEN_LEDGER_ORIGIN. Nothing was changed",
        )
    with supervisor.only_one(settings):
        has_memory = _refuse_if_at_work(settings)
        try:
            aside = _put_back(settings, copy, store, replace=replace)
            if packed is not None:
                keys.restore(settings, packed)
        except OSError as error:
            raise OutageError(
                "not-restored",
                f"{error.filename or copy}: {error.strerror}. Run it again: it goes on from there",
            ) from None
        if has_memory:
            wiring.empty_memory(settings)
        return _told(settings, manifest, digest, aside)


def _packed(settings: Settings, opened_by: Keys) -> bytes | None:
    """The keys that are to be put back; None where those that are here stay."""
    if opened_by.file is None:
        if not any(settings.keys_dir.glob("*")):
            raise InputError(
                "no-keys",
                f"there are no keys in {settings.keys_dir}: --keys FILE, or put them there",
            )
        return None
    packed = keys.unpacked(opened_by.file, opened_by.passphrase_file)
    if differing := keys.differing(settings, packed):
        raise ConflictError(
            "keys-differ",
            f"other keys or secrets are here than in {opened_by.file}: {', '.join(differing[:5])}. "
            "Nothing was changed. Leave --keys out to go on with those that are here; or move "
            "them away first, if they were only just made",
        )
    return packed


def _refuse_if_at_work(settings: Settings) -> bool:
    """Whether Memory answers, with the secrets that are here now.

    An embedded one is down with its stack. With the password of the copy, on the same port, another
    stack's Memory could answer: a rehearsal must not touch it.

    Raises:
        ConflictError: programs that no supervisor of this directory started (in containers) work.
    """
    try:
        alive = wiring.open_ports(settings).watches.alive(_PROGRAMS)
    except GovernorError:
        return False
    if working := [name for name, is_alive in alive.items() if is_alive]:
        raise ConflictError(
            "stack-runs",
            f"{', '.join(working)} did their work just now: stop all programs first, and wait for "
            "half a minute. Nothing was changed",
        )
    return True


def _put_back(settings: Settings, copy: Path, store: Path, *, replace: bool) -> Path | None:
    """Objects first, then the store in one rename; where the former store is now."""
    state = settings.state_dir
    if store.exists() and not replace:
        raise ConflictError(
            "store-exists",
            f"{store} exists: --replace sets it aside. Nothing was changed",
        )
    _compare(settings, copy)
    with counting("files restored") as count:
        for number, (target, source) in enumerate(_objects(settings, copy)):
            folder.copy_file(source, target)
            count(number)
    fresh = store.with_name(f"{store.name}.restored")
    fresh.unlink(missing_ok=True)
    folder.copy_file(copy / folder.DOCUMENTS, fresh)
    copies.make_ready(fresh)
    aside = None
    former = [store.with_name(store.name + end) for end in ("", "-wal", "-shm")]
    for path in (*former, state / "valkey"):
        if path.exists():
            aside = aside or _new_folder(state)
            shutil.move(path, aside / path.name)
    fresh.rename(store)
    folder.sync(store.parent)
    return aside


def _compare(settings: Settings, copy: Path) -> None:
    for target, source in _objects(settings, copy):
        if target.exists() and folder.digest(target) != folder.digest(source):
            raise ConflictError(
                "object-exists",
                f"{target} exists with other content than {source}; nothing was changed",
            )


def _objects(settings: Settings, copy: Path) -> Iterator[tuple[Path, Path]]:
    """Where each object of the copy belongs, and where it is now."""
    for kind, root in wiring.object_folders(settings).items():
        for name, path in folder.files(copy / kind):
            yield root / name, path


def _new_folder(state: Path) -> Path:
    number = 1
    while True:
        aside = state / f"before-restore-{number}"
        try:
            aside.mkdir(mode=0o700)
            return aside
        except FileExistsError:
            number += 1


def _told(
    settings: Settings,
    manifest: folder.Manifest,
    digest: str,
    aside: Path | None,
) -> tuple[dict[str, Any], str, int]:
    ports = wiring.open_ports(settings)
    reports = [
        audit_ledger(ports, each, pins=pins_of(ports, settings, each)) for each in _accounts(ports)
    ]
    behind = [each for each in reports if _signed_since(ports, each)]
    rows = [_row(ports, each) for each in reports]
    proof = receipt(
        ports,
        "store_restored",
        SYSTEM_ACCOUNT,
        f"{digest}/{timestamp(ports.clock.now())}",
        copied_at=manifest.made_at,
        copy_sha256=digest,
        ledgers=len(reports),
        ledgers_behind=len(behind),
        operator=getpass.getuser()[:256],
        operator_is="unverified",
    )
    try:
        commit_once(ports, [proof])
    except GovernorError as error:
        raise OutageError(
            "not-receipted", f"all is restored, and its receipt is not written: {error.detail}"
        ) from None
    broken = [each.account_id for each in reports if not each.is_valid and each not in behind]
    value = {
        "copied_at": manifest.made_at,
        "set_aside": str(aside) if aside else None,
        "ledgers": rows,
    }
    lines = [f"restored as of {manifest.made_at}; actions that were in flight then run again"]
    lines += [f"  {row['account_id']}: {row['words']}" for row in rows]
    lines += [f"what was here before is in {aside}"] if aside else []
    if behind:
        lines.append(
            "some ledgers were sealed further than the copy goes. Nothing is signed over that: "
            "restore a newer copy, if there is one, before ggen up; docs/backup.md"
        )
    if broken:
        lines.append(
            f"broken in the copy, or signed by keys that are not here: {', '.join(broken)}. See: "
            "ggen verify-ledger, ggen keys list"
        )
    if not behind and not broken:
        lines.append("every ledger is whole: ggen up")
    return value, "\n".join(lines), 1 if behind or broken else 0


def _accounts(ports: Ports) -> list[str]:
    """Every account with a ledger: by the store, and by checkpoints the store knows nothing of."""
    found = {name.split("/")[1] for name in ports.objects.names("checkpoints/")}
    return sorted(found.union(ledgers(ports)))


def _signed_since(ports: Ports, report: Report) -> list[str]:
    """The numbers of checkpoints that were signed after the newest seal of the store."""
    prefix = f"checkpoints/{report.account_id}/"
    names = [name.removeprefix(prefix) for name in ports.objects.names(prefix)]
    return [name for name in names if name.isdecimal() and name > seal_id(report.last)]


def _row(ports: Ports, report: Report) -> dict[str, Any]:
    since = _signed_since(ports, report)
    words = f"{report.words()}, {report.sealed} sealed receipts, {report.unsealed} to be sealed"
    lost = None
    if since:
        lost = max(0, _size_at(ports, report.account_id, since[-1]) - report.sealed)
        words = (
            f"{lost} sealed receipts are missing: the store ends with seal {report.last}, and "
            f"checkpoints up to {int(since[-1])} were signed"
        )
    elif report.findings:
        first = report.findings[0]
        words = f"broken: {first.subject}: {first.check}: {first.fault}"
    return {
        "account_id": report.account_id,
        "is_valid": report.is_valid,
        "sealed": report.sealed,
        "missing": lost,
        "words": words,
    }


def _size_at(ports: Ports, account_id: str, name: str) -> int:
    """How many receipts a checkpoint's copy says were sealed; 0 where it is spoilt."""
    ring = ports.keys.ring()
    note = ports.objects.get(mirror_name(account_id, name)) or b""
    try:
        text = note.decode(errors="replace")
        return open_checkpoint(text, ring.log_origin(account_id), ring)[0].size
    except InputError:
        return 0
