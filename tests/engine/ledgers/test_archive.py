"""Archives: the same bytes each time, judged far away, and safe to open."""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.audit.verify_archive import Against, verify_archive
from governor.errors import InputError
from governor.paths import receipt_path
from ledger import archive
from ledger.keys import fingerprint
from ports import Ports
from tasks.archives.write import write_archive
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import BrokenLogError
from tests.support.ledgers import ACCOUNT, build, emit, run_sql, spoil

Files = dict[str, bytes]


def _archive(ports: Ports, folder: Path, name: str = "a.tar.gz", account_id: str = ACCOUNT) -> Path:
    path = folder / name
    with path.open("wb") as target:
        made = write_archive(ports, account_id, target)
    assert made.size_bytes == path.stat().st_size
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return path


def _trust(ports: Ports, folder: Path) -> Path:
    path = folder / "trusted.json"
    path.write_text(ports.keys.ring().model_dump_json(exclude_none=True))
    return path


def _files(path: Path) -> Files:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def _packed(path: Path, files: Files, *, honest_manifest: bool = False) -> Path:
    """An archive of these files, with a manifest that fits them."""
    if honest_manifest:
        digests = {
            n: hashlib.sha256(c).hexdigest() for n, c in files.items() if n != archive.MANIFEST
        }
        files = {**files, archive.MANIFEST: archive.manifest(digests)}
    with path.open("wb") as target:
        archive.write(target, ((n, len(c), io.BytesIO(c)) for n, c in sorted(files.items())))
    return path


def _found(path: Path, trust: Path, extends: Path | None = None) -> str:
    try:
        report = verify_archive(path, against=Against(trust, extends)).report
    except InputError as error:
        return error.detail
    return "\n".join(f"{f.subject}: {f.check}: {f.fault}" for f in report.findings)


@pytest.fixture
def sealed(ports: Ports) -> list[str]:
    """A log with full and partial tiles of two levels, sealed under two keys."""
    ids = build(ports, batches=2, each=130)
    ports.keys.rotate(ports.clock.now())
    return ids + emit(ports, *map(str, range(30)))


@pytest.fixture
def whole(ports: Ports, sealed: list[str], tmp_path: Path) -> Path:
    assert seal_ledger(ports, ACCOUNT)
    return _archive(ports, tmp_path)


def test_an_honest_archive_is_valid_and_made_the_same_way_every_time(
    ports: Ports, whole: Path, tmp_path: Path
) -> None:
    judged = verify_archive(whole, against=Against(_trust(ports, tmp_path)))

    assert (judged.report.findings, judged.notes) == ([], [])
    assert (judged.report.sealed, judged.report.account_id) == (291, ACCOUNT)
    assert _archive(ports, tmp_path, "b.tar.gz").read_bytes() == whole.read_bytes()
    names = list(_files(whole))
    assert names == sorted(names)
    assert {"tile/0/000", "tile/0/001.p/35", "tile/1/000.p/1", "tile/entries/001.p/35"} <= set(
        names
    )


def test_an_archive_says_what_the_log_says(ports: Ports, whole: Path, sealed: list[str]) -> None:
    lines = _files(whole)["receipts.jsonl"].splitlines()
    told = [
        json.loads(base64.b64decode(json.loads(line)["payload"]))["receipt_id"] for line in lines
    ]
    assert told[:260] == sealed[:260]
    assert set(sealed) <= set(told)


def _kinds(whole: Files) -> list[str]:
    """One file of each kind an archive has."""
    seen: dict[str, str] = {}
    for name in whole:
        seen.setdefault(re.sub(r"\d+", "n", name.replace("schema/", "s/").split("_")[0]), name)
    return list(seen.values())


@pytest.mark.parametrize("harm", ["flip", "drop", "truncate", "append"])
def test_any_file_spoilt_is_found_and_named(
    ports: Ports, whole: Path, tmp_path: Path, harm: str
) -> None:
    files, trust = _files(whole), _trust(ports, tmp_path)
    for name in _kinds(files):
        content = files[name]
        at = len(content) // 2
        changed = dict(files)
        match harm:
            case "flip":
                changed[name] = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            case "drop":
                del changed[name]
            case "truncate":
                changed[name] = content[:-1]
            case _:
                changed[name] = content + b"x"
        assert name in _found(_packed(tmp_path / "c.tar.gz", changed), trust)


@pytest.mark.parametrize(
    "name",
    ["receipts.jsonl", "checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/001.p/35"],
)
def test_what_is_signed_is_found_spoilt_even_where_the_manifest_was_made_to_fit(
    ports: Ports, whole: Path, tmp_path: Path, name: str
) -> None:
    files = _files(whole)
    at = len(files[name]) // 2
    files[name] = files[name][:at] + bytes([files[name][at] ^ 1]) + files[name][at + 1 :]
    path = _packed(tmp_path / "c.tar.gz", files, honest_manifest=True)

    assert _found(path, _trust(ports, tmp_path))


@pytest.mark.parametrize("change", ["drop", "duplicate", "reorder", "swap in", "truncate"])
def test_receipts_rearranged_are_found_even_where_the_manifest_was_made_to_fit(
    ports: Ports, whole: Path, tmp_path: Path, change: str
) -> None:
    build(ports, account_id="other")
    theirs = _files(_archive(ports, tmp_path, "o.tar.gz", "other"))["receipts.jsonl"].splitlines()
    files = _files(whole)
    lines = files["receipts.jsonl"].splitlines()
    match change:
        case "drop":
            del lines[7]
        case "duplicate":
            lines.insert(7, lines[7])
        case "reorder":
            lines[7], lines[8] = lines[8], lines[7]
        case "swap in":
            lines[7] = theirs[7]
        case _:
            lines.pop()
    files["receipts.jsonl"] = b"\n".join(lines) + b"\n"
    path = _packed(tmp_path / "c.tar.gz", files, honest_manifest=True)

    found = _found(path, _trust(ports, tmp_path))
    assert ("leaf 290" if change == "truncate" else "leaf 7") in found


def test_an_older_archive_is_valid_and_a_later_one_must_extend_it(
    ports: Ports, tmp_path: Path
) -> None:
    build(ports)
    older = _archive(ports, tmp_path, "older.tar.gz")
    emit(ports, "more")
    assert seal_ledger(ports, ACCOUNT)
    later, trust = _archive(ports, tmp_path, "later.tar.gz"), _trust(ports, tmp_path)

    assert _found(later, trust, extends=older) == ""
    assert "its end is missing" in _found(older, trust, extends=later)


def test_a_rewritten_history_is_convicted_by_an_archive_handed_out_before(
    ports: Ports, tmp_path: Path
) -> None:
    build(ports)
    older, trust = _archive(ports, tmp_path, "older.tar.gz"), _trust(ports, tmp_path)
    run_sql(tmp_path / "documents.db", "DELETE FROM documents WHERE path LIKE 'tenants/acme/%'")
    shutil.rmtree(tmp_path / "objects" / "checkpoints")
    emit(ports, *(f"forged-{n}" for n in range(20)))
    assert seal_ledger(ports, ACCOUNT)
    forged = _archive(ports, tmp_path, "forged.tar.gz")

    assert _found(forged, trust) == ""
    assert "not those this checkpoint was signed for" in _found(forged, trust, extends=older)


def test_keys_in_the_archive_are_not_trusted(ports: Ports, whole: Path, tmp_path: Path) -> None:
    trust = _trust(ports, tmp_path)
    ring = json.loads(trust.read_text())
    ring["keys"] = ring["keys"][:1]
    trust.write_text(json.dumps(ring))

    found = _found(whole, trust)
    assert "not signed by any trusted key" in found


def test_a_ledger_that_does_not_hold_is_not_archived(ports: Ports, tmp_path: Path) -> None:
    receipt_id = build(ports)[7]
    path = receipt_path(ACCOUNT, receipt_id)
    spoil(tmp_path / "documents.db", path, lambda d: d.update(payload=d["payload"] + " "))

    with pytest.raises((BrokenLogError, InputError), match=receipt_id):
        write_archive(ports, ACCOUNT, io.BytesIO())


def test_a_poison_receipt_is_in_the_archive_as_what_it_was(ports: Ports, tmp_path: Path) -> None:
    poison = emit(ports, "x")[0]
    path = receipt_path(ACCOUNT, poison)
    spoil(tmp_path / "documents.db", path, lambda d: d.update(payload=d["payload"] + " "))
    assert seal_ledger(ports, ACCOUNT)

    found = _found(_archive(ports, tmp_path), _trust(ports, tmp_path))
    assert f"receipt {poison} (leaf 0): immutability: was no receipt when it was sealed" in found


def _hostile(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("../escaped"),
        _member("/tmp/escaped"),
        _member("tile/../../escaped"),
        _member("schema/../x.json"),
        _member("tile/0/000/../001"),
        _member("unknown"),
        _member("checkpoint", tarfile.SYMTYPE, "/etc/passwd"),
        _member("checkpoint", tarfile.LNKTYPE, "keys.json"),
        _member("tile", tarfile.DIRTYPE),
        _member("checkpoint", tarfile.FIFOTYPE),
        _member("checkpoint", tarfile.CHRTYPE),
        _member("a" * 300),
        _member("tile/0/000.p/0"),
    ],
    ids=lambda member: f"{member.name[:20]!r}-{member.type!r}",
)
def test_a_hostile_member_is_refused_before_anything_is_written(
    ports: Ports, tmp_path: Path, member: tarfile.TarInfo
) -> None:
    before = sorted(os.listdir(tmp_path.parent))
    path = _hostile(tmp_path / "h.tar.gz", (member, b""))

    with pytest.raises(InputError, match=r"refused|no checkpoint"):
        verify_archive(path, against=Against(_trust(ports, tmp_path)))

    assert sorted(os.listdir(tmp_path.parent)) == before
    assert not Path("/tmp/escaped").exists()


def _bomb(path: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    """A member of so many zeros."""
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    with gzip.open(path, "wb", compresslevel=9) as packed:
        packed.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("receipts.jsonl", tarfile.REGTYPE),
        ("checkpoint", tarfile.REGTYPE),
        ("tile/0/000", tarfile.REGTYPE),
        ("x", tarfile.XHDTYPE),
        ("x", tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_a_bomb_is_refused_with_little_memory(
    ports: Ports, tmp_path: Path, name: str, kind: bytes
) -> None:
    path, trust = _bomb(tmp_path / "b.tar.gz", name, 300 << 20, kind), _trust(ports, tmp_path)
    script = (
        "import re, sys; from pathlib import Path\n"
        "from cli.audit.verify_archive import Against, verify_archive\n"
        "from governor.errors import InputError\n"
        "try:\n    verify_archive(Path(sys.argv[1]), against=Against(Path(sys.argv[2])))\n"
        "except InputError as error:\n    print(error)\n"
        # not getrusage: its peak is that of the process it was started by, if that was higher
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(int(peak[1]) // 1024)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(trust)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    refusal, used_mib = done.stdout.strip().splitlines()
    assert "refused" in refusal
    assert int(used_mib) < 150


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar"), gzip.compress(bytes(1024))[:-4]],
    ids=["nothing", "no gzip", "no tar", "cut off"],
)
def test_what_is_no_archive_is_refused(ports: Ports, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.tar.gz"
    path.write_bytes(content)

    with pytest.raises(InputError):
        verify_archive(path, against=Against(_trust(ports, tmp_path)))


@pytest.mark.parametrize(
    "harm",
    [
        lambda packed: packed + b"x",
        lambda packed: packed + gzip.compress(b"x"),
        lambda packed: packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:],
        lambda packed: packed[:-1],
    ],
    ids=["appended", "another member", "another CRC", "cut short"],
)
def test_an_archive_spoilt_behind_its_last_file_is_refused(
    ports: Ports, whole: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "e.tar.gz"
    path.write_bytes(harm(whole.read_bytes()))

    with pytest.raises(InputError, match="tar.gz|goes on after its end"):
        verify_archive(path, against=Against(_trust(ports, tmp_path)))


# -- a stranger, with nothing of ours


@pytest.fixture
def unpacked(ports: Ports, tmp_path: Path) -> Path:
    build(ports, batches=3, each=13)
    folder = tmp_path / "audit"
    folder.mkdir()
    path = _archive(ports, tmp_path)
    subprocess.run(["tar", "-xzf", path, "-C", folder], check=True)
    return folder


def _stranger(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command without this project, its packages or its environment."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _verifier(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return _stranger(sys.executable, "-I", "-S", "verify.py", *arguments, folder=folder)


def test_a_stranger_verifies_with_python_and_openssl_alone(ports: Ports, unpacked: Path) -> None:
    ours = _stranger(
        sys.executable, "-I", "-S", "-c", "import ledger", folder=unpacked
    )  # what is ours cannot be imported there
    assert "No module named 'ledger'" in ours.stderr
    key = fingerprint(ports.keys.signer().public_key)
    receipt_id = _ids(unpacked)[5]

    done = _verifier(unpacked, "--fingerprint", key, "--receipt", receipt_id)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"receipt {receipt_id} is leaf 5; its signature fits" in done.stdout
    wrong = _verifier(unpacked, "--fingerprint", "0" * 64)
    assert (wrong.returncode, "none of the fingerprints" in wrong.stdout) == (1, True)
    nobody = _verifier(unpacked, "--fingerprint", key, "--receipt", "nobody")
    assert (nobody.returncode, "there is no receipt nobody" in nobody.stdout) == (1, True)


@pytest.mark.parametrize("isolated", [True, False])
def test_a_module_that_came_along_is_not_imported(
    ports: Ports, unpacked: Path, isolated: bool
) -> None:
    (unpacked / "argparse.py").write_text("print('hijacked')\nraise SystemExit(0)\n")
    key = fingerprint(ports.keys.signer().public_key)

    flags = ["-I"] if isolated else []
    done = _stranger(sys.executable, *flags, "verify.py", "--fingerprint", key, folder=unpacked)

    assert done.returncode == 1
    assert "argparse.py is not listed" in done.stdout
    assert "hijacked" not in done.stdout


@pytest.mark.parametrize("with_manifest", [False, True])
@pytest.mark.parametrize(
    "name", ["receipts.jsonl", "checkpoint", "tile/entries/000.p/39", "keys.json"]
)
def test_a_stranger_sees_what_was_spoilt(
    ports: Ports, unpacked: Path, name: str, with_manifest: bool
) -> None:
    path = unpacked / name
    content = path.read_bytes()
    at = len(content) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    if with_manifest:
        digests = {
            str(p.relative_to(unpacked)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in unpacked.rglob("*")
            if p.is_file() and p.name != archive.MANIFEST
        }
        (unpacked / archive.MANIFEST).write_bytes(archive.manifest(digests))

    done = _verifier(unpacked, "--fingerprint", fingerprint(ports.keys.signer().public_key))

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("BROKEN")
    if not with_manifest:
        assert name in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:3], *lines[4:]],
        lambda lines: [*lines, lines[0]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
    ],
    ids=["truncated", "dropped", "added", "reordered"],
)
def test_a_stranger_sees_receipts_rearranged(
    ports: Ports, unpacked: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = unpacked / "receipts.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    text = (unpacked / archive.MANIFEST).read_text()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (unpacked / archive.MANIFEST).write_text(
        re.sub(r"[0-9a-f]{64}  receipts", f"{digest}  receipts", text)
    )

    done = _verifier(unpacked, "--fingerprint", fingerprint(ports.keys.signer().public_key))

    assert done.returncode == 1
    assert "receipt" in done.stdout.splitlines()[-1]


def _ids(folder: Path) -> list[str]:
    return [
        json.loads(base64.b64decode(json.loads(line)["payload"]))["receipt_id"]
        for line in (folder / "receipts.jsonl").read_text().splitlines()
    ]
