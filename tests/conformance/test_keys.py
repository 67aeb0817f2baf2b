"""What every Keys adapter must do."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.local import key_files
from adapters.local.key_files import KeyFiles
from governor.errors import InputError, OutageError
from governor.times import timestamp
from ledger.keys import ALWAYS

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    made = KeyFiles(tmp_path / "keys", "ledger.example")
    made.create_missing()
    return made


def test_there_is_one_key_and_it_is_trusted(keys: KeyFiles, tmp_path: Path) -> None:
    (key,) = keys.ring()

    assert key.key_id == keys.signer().key_id
    assert key.valid_until is None
    assert keys.ring().log_origin("acme") == "ledger.example/acme"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}
    before = sorted(os.listdir(tmp_path / "keys"))
    keys.create_missing()
    assert sorted(os.listdir(tmp_path / "keys")) == before


def test_a_rotation_is_seen_by_who_has_the_keys_open(keys: KeyFiles, tmp_path: Path) -> None:
    other = KeyFiles(tmp_path / "keys", "ledger.example")
    assert other.signer().key_id == keys.signer().key_id

    before, after = keys.rotate(NOW)

    assert other.signer().key_id == after != before
    assert [(k.key_id, k.valid_until) for k in other.ring()] == [
        (before, timestamp(NOW)),
        (after, None),
    ]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_rotation_killed_half_way_leaves_keys_that_sign_and_are_trusted(
    keys: KeyFiles, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    written = []

    def write_and_die(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == at:
            raise KeyboardInterrupt
        real(path, text)

    real = key_files.replace
    with monkeypatch.context() as patched:
        patched.setattr(key_files, "replace", write_and_die)
        try:
            keys.rotate(NOW)
        except KeyboardInterrupt:
            pass

    current = keys.ring().find(keys.signer().key_id)
    assert current is not None
    assert current.valid_until is None
    before, after = keys.rotate(NOW + timedelta(hours=1))
    assert [k.key_id for k in keys.ring() if k.valid_until is None] == [after]
    assert keys.ring().find(before) is not None


def test_a_leaked_key_is_believed_no_more_and_never_again(keys: KeyFiles) -> None:
    first = keys.signer().key_id
    keys.rotate(NOW)
    at = NOW + timedelta(days=3)
    second = keys.signer().key_id
    keys.rotate(NOW + timedelta(days=5))

    keys.disown(second, at)

    leaked = keys.ring().find(second)
    assert leaked is not None
    assert leaked.leaked_at == timestamp(at)
    for wrong in (at + timedelta(seconds=1), NOW - timedelta(seconds=1)):
        with pytest.raises(InputError, match="Nothing was changed"):
            keys.disown(second, wrong)
    keys.disown(second, at - timedelta(days=1))
    with pytest.raises(InputError, match="rotate first"):
        keys.disown(keys.signer().key_id, NOW)
    with pytest.raises(InputError, match="no key"):
        keys.disown("nobody", NOW)
    assert [k.leaked_at is None for k in keys.ring() if k.key_id == first] == [True]


def test_keys_of_before_there_was_a_list_are_trusted(tmp_path: Path) -> None:
    keys = KeyFiles(tmp_path / "keys", "ledger.example")
    keys.create_missing()
    (tmp_path / "keys" / "ring.json").unlink()

    keys.create_missing()

    assert [(k.key_id, k.valid_from) for k in keys.ring()] == [(keys.signer().key_id, ALWAYS)]


@pytest.mark.parametrize("name", ["current", "ring.json"])
@pytest.mark.parametrize("content", ["", "{", None])
def test_what_cannot_be_used_is_named_and_not_shown(
    keys: KeyFiles, tmp_path: Path, name: str, content: str | None
) -> None:
    path = tmp_path / "keys" / name
    path.unlink() if content is None else path.write_text(content)

    with pytest.raises(OutageError, match=r"keys") as refused:
        keys.signer() if name == "current" else keys.ring()
    assert "PRIVATE" not in refused.value.detail
