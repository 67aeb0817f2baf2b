"""``ggen restore``: put a copy back, take what newer archives have, and name the receipts it lacks.

Nothing is deleted: what was there is set aside. Objects that are there stay, so that checkpoints
signed after the copy are found, and no ledger is sealed on top of an older one.
"""

import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import wiring
from cli.backup import folder, keys, mend
from cli.output import counting
from cli.stack import supervisor
from config.settings import Settings, load
from governor.errors import ConflictError, GovernorError, InputError, OutageError
from governor.records import SYSTEM_ACCOUNT
from governor.times import timestamp
from ledger.log import seal_id
from ports import Ports
from ports.documents import every
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.report import Report
from tasks.receipts.commit import commit_once, receipt

_OF_THE_STORE = ("documents.db", "documents.db-wal", "documents.db-shm", "valkey")


@dataclass(frozen=True, slots=True)
class Keys:
    """The file of keys, and what opens it."""

    file: Path | None
    passphrase_file: Path | None


def restore(
    copy: Path, opened_by: Keys, archives: Sequence[Path], *, replace: bool
) -> tuple[dict[str, Any], str, int]:
    """Put a copy back into this state directory; the exit code of verifying all ledgers, too.

    Raises:
        InputError: the copy, the keys or an archive cannot be used. Nothing was changed.
        ConflictError: a stack runs here, a store is here and ``replace`` was not given, or an
            object is here with other content. Nothing was changed.
        OutageError: the disk does not take it. Run it again: it goes on where it stopped.
    """
    settings = load()
    if settings.documents_url:
        raise InputError(
            "not-embedded", f"Documents lie in {settings.documents_url}: see docs/backup.md"
        )
    manifest, digest = folder.read(copy)
    packed = keys.unpacked(opened_by.file, opened_by.passphrase_file) if opened_by.file else None
    if packed is None and not any(settings.keys_dir.glob("*")):
        raise InputError(
            "no-keys", f"there are no keys in {settings.keys_dir}: --keys FILE, or put them there"
        )
    if manifest.ledger_origin != settings.ledger_origin:
        raise InputError(
            "other-origin",
            f"the copy is of {manifest.ledger_origin}, not {settings.ledger_origin}: set "
            "GGEN_LEDGER_ORIGIN. Nothing was changed",
        )
    with supervisor.only_one(settings):
        try:
            aside = _put_back(settings, copy, replace=replace)
            if packed is not None:
                keys.restore(settings, packed)
        except OSError as error:
            raise OutageError(
                "not-restored",
                f"{error.filename or copy}: {error.strerror}. Run it again: it goes on from there",
            ) from None
        recovered = mend.take(settings, archives)
        return _told(settings, manifest, digest, recovered, aside)


def _put_back(settings: Settings, copy: Path, *, replace: bool) -> Path | None:
    """Objects first, then the store in one rename; where the former store is now."""
    state = settings.state_dir
    store = state / folder.DOCUMENTS
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
    fresh = state / f"{folder.DOCUMENTS}.restored"
    fresh.unlink(missing_ok=True)
    folder.copy_file(copy / folder.DOCUMENTS, fresh)
    aside = None
    for name in _OF_THE_STORE:
        if (state / name).exists():
            aside = aside or _new_folder(state)
            (state / name).rename(aside / name)
    fresh.rename(store)
    folder.sync(state)
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
    recovered: int,
    aside: Path | None,
) -> tuple[dict[str, Any], str, int]:
    ports = wiring.open_ports(settings)
    reports = [audit_ledger(ports, account_id) for account_id in _accounts(ports)]
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
        receipts_recovered=recovered,
        operator=getpass.getuser()[:256],
        operator_is="unverified",
    )
    try:
        commit_once(ports, [proof])
    except GovernorError as error:
        raise OutageError(
            "not-receipted", f"all is restored, and its receipt is not written: {error.detail}"
        ) from None
    broken = [each for each in reports if not each.is_valid]
    value = {
        "copied_at": manifest.made_at,
        "receipts_recovered": recovered,
        "set_aside": str(aside) if aside else None,
        "ledgers": rows,
    }
    lines = [f"restored as of {manifest.made_at}, {recovered} receipts recovered from archives"]
    lines += [f"  {row['account_id']}: {row['words']}" for row in rows]
    lines += [f"what was here before is in {aside}"] if aside else []
    if broken:
        lines.append(
            "nothing is signed over what is missing: give a newer copy, or a newer archive of "
            "these accounts (--archive FILE). The other accounts can go on: ggen up"
        )
    else:
        lines.append("every ledger is whole: ggen up")
    return value, "\n".join(lines), 1 if broken else 0


def _accounts(ports: Ports) -> list[str]:
    """Every account with a ledger: by the store, and by checkpoints the store knows nothing of."""
    found = {d.path.split("/")[1] for d in every(ports.documents, "tenants")}
    found |= {name.split("/")[1] for name in ports.objects.names("checkpoints/")}
    return sorted(found | {SYSTEM_ACCOUNT})


def _signed_since(ports: Ports, report: Report) -> list[str]:
    """The numbers of checkpoints that were signed after the newest seal of the store."""
    prefix = f"checkpoints/{report.account_id}/"
    names = [name.removeprefix(prefix) for name in ports.objects.names(prefix)]
    return [name for name in names if name > seal_id(report.last)]


def _row(ports: Ports, report: Report) -> dict[str, Any]:
    since = _signed_since(ports, report)
    words = f"{report.words()}, {report.sealed} sealed receipts, {report.unsealed} to be sealed"
    lost = None
    if since:
        note = ports.objects.get(f"checkpoints/{report.account_id}/{since[-1]}") or b""
        size = int(note.splitlines()[1])
        lost = size - report.sealed
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
