"""The ledger by command, on a running stack and without one: verdicts and their exit codes."""

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from adapters.wiring import open_ports
from config.settings import Settings
from tasks.ledgers.stored_log import StoredLog
from tests.stack.conftest import Stack, new_stack
from tests.support.ledgers import emit
from tests.support.waiting import until


def _verify(stack: Stack, account_id: str, *more: str) -> tuple[int, dict[str, object]]:
    done = stack.ggen("verify-ledger", "--account-id", account_id, "--json", *more)
    return done.returncode, json.loads(done.stdout)


def _spoil(stack: Stack, receipt_id: str, old: str, new: str) -> None:
    database = sqlite3.connect(stack.state / "documents.db")
    with database:
        database.execute(
            "UPDATE documents SET data = replace(data, ?, ?) WHERE path LIKE ?",
            [old, new, f"%/receipts/{receipt_id}"],
        )
    database.close()


def test_what_was_just_receipted_is_sealed_and_proved(stack: Stack) -> None:
    receipt = stack.subscribe("led-one")

    told = stack.ggen(
        "verify-receipt", "--receipt-id", receipt["receipt_id"], "--account-id", "led-one"
    )

    assert told.returncode == 0, told.stdout
    lines = told.stdout.splitlines()
    checks = ("immutability", "ordering", "integrity", "completeness", "inclusion")
    assert [line.split()[:2] for line in lines[:5]] == [["ok", check] for check in checks]
    assert "leaf 0, recorded at" in lines[4]
    assert lines[5] == "=> valid"
    code, verified = _verify(stack, "led-one")
    assert (code, verified["verdict"], verified["sealed"]) == (0, "valid", 1)


def test_receipts_are_sealed_without_a_request(stack: Stack) -> None:
    stack.subscribe("led-quick")
    ports = open_ports(Settings(state_dir=stack.state, valkey_port=stack.valkey_port))
    until(lambda: StoredLog.of(ports, "led-quick").newest_signed(), 5)
    ports.documents.close()


def test_objectives_by_the_record_are_those_of_the_metrics(stack: Stack) -> None:
    stack.subscribe("led-slo")
    ports = open_ports(Settings(state_dir=stack.state, valkey_port=stack.valkey_port))
    until(lambda: ports.unsealed.unsealed_count() == 0, 20)
    told = json.loads(stack.ggen("slo", "--since", "1d", "--json").stdout)
    with stack.http() as http:
        metrics = http.get("/metrics").text
    ports.documents.close()

    rows = {row["objective"]: row for row in told["objectives"]}
    assert rows["deploy_sku_receipt"]["events"] > 0
    assert rows["deploy_sku_receipt"]["p99"] >= rows["deploy_sku_receipt"]["p50"] > 0
    for name, row in rows.items():
        line = f'ggen_objective_events_total{{objective="{name}"}} {float(row["events"])}'
        assert line in metrics
    text = stack.ggen("slo", "--since", "1d").stdout
    assert max(map(len, text.splitlines())) <= 80
    refused = stack.ggen("slo", "--since", "yesterday")
    assert (refused.returncode, "--since is like 30d" in refused.stderr) == (2, True)


def test_an_export_is_in_the_order_of_the_log_with_its_proofs(stack: Stack) -> None:
    stack.subscribe("led-export")
    for n in range(3):
        stack.signal("led-export", {"signal_id": f"s{n}", "type": "demo.succeed", "payload": {}})
    until(lambda: len(stack.receipts("led-export")) == 4)
    until(lambda: _verify(stack, "led-export")[1]["sealed"] == 4)

    def export(*more: str) -> list[dict[str, object]]:
        done = stack.ggen("export-receipts", "--account-id", "led-export", *more)
        assert done.returncode == 0, done.stderr
        items: list[dict[str, object]] = (
            [json.loads(line) for line in done.stdout.splitlines()]
            if "jsonl" in more
            else json.loads(done.stdout)
        )
        return items

    items = export("--format", "json")
    assert [item["proof"]["index"] for item in items] == [0, 1, 2, 3]  # type: ignore[index]
    for item in items:
        proof = item.pop("proof")
        assert json.loads(proof["payload"]) == item  # type: ignore[index]
    assert len(export("--format", "jsonl")) == 4
    assert len(export("--operation", "action_complete")) == 3
    assert len(export("--operation", "action_complete", "--limit", "2")) == 2
    assert len(export("--since", str(items[2]["timestamp"]))) == 2
    assert export("--since", "2999-01-01") == []
    nobody = stack.ggen("export-receipts", "--account-id", "nobody")
    assert (nobody.returncode, json.loads(nobody.stdout)) == (0, [])


def test_an_archive_is_handed_out_and_verified_without_a_store(
    stack: Stack, tmp_path: Path
) -> None:
    stack.subscribe("led-archive")
    keys, first, second = (tmp_path / name for name in ("keys.json", "a.tar.gz", "b.tar.gz"))
    assert stack.ggen("keys", "export", "--output", str(keys)).returncode == 0
    made = stack.ggen(
        "export-receipts",
        "--account-id",
        "led-archive",
        "--format",
        "archive",
        "--output",
        str(first),
    )
    assert made.returncode == 0, made.stderr
    assert f"1 receipts, {first.stat().st_size} bytes" in made.stderr
    assert hashlib.sha256(first.read_bytes()).hexdigest() in made.stderr
    again = stack.ggen(
        "export-receipts",
        "--account-id",
        "led-archive",
        "--format",
        "archive",
        "--output",
        str(first),
    )
    assert (again.returncode, "exists already" in again.stderr) == (4, True)

    far = Stack(tmp_path / "elsewhere", 1, 2, 3)  # no stack, no store
    verified = far.ggen("verify-archive", str(first), "--trust", str(keys))
    assert (verified.returncode, "=> valid" in verified.stdout) == (0, True)
    assert not (tmp_path / "elsewhere").exists()

    stack.signal("led-archive", {"signal_id": "s", "type": "demo.succeed", "payload": {}})
    until(lambda: len(stack.receipts("led-archive")) == 2)
    stack.ggen(
        "export-receipts",
        "--account-id",
        "led-archive",
        "--format",
        "archive",
        "--output",
        str(second),
    )
    extended = far.ggen(
        "verify-archive", str(second), "--trust", str(keys), "--extends", str(first)
    )
    assert (extended.returncode, "2 receipts" in extended.stdout) == (0, True)
    assert f"extends the checkpoint of {first} over 1 receipts" in extended.stdout
    shorter = far.ggen("verify-archive", str(first), "--trust", str(keys), "--extends", str(second))
    assert (shorter.returncode, "its end is missing" in shorter.stdout) == (1, True)
    assert _verify(stack, "led-archive", "--extends", str(first))[0] == 0
    content = first.read_bytes()
    for at in (5, len(content) // 3, len(content) // 2, len(content) - 6):
        spoilt = tmp_path / "spoilt.tar.gz"
        spoilt.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        broken = far.ggen("verify-archive", str(spoilt), "--trust", str(keys))
        assert broken.returncode == (0 if at == 5 else 1), broken.stdout  # gzip's own time stamp
        assert at == 5 or "BROKEN" in broken.stdout
    spoilt.write_bytes(content[: len(content) // 2])
    cut = far.ggen("verify-archive", str(spoilt), "--trust", str(keys))
    assert (cut.returncode, "not a readable tar.gz" in cut.stdout) == (1, True)
    assert "Traceback" not in cut.stderr


def test_an_archive_to_standard_output_is_the_same_archive(stack: Stack, tmp_path: Path) -> None:
    import subprocess

    from tests.stack.conftest import GGEN

    stack.subscribe("led-stdout")
    path = tmp_path / "a.tar.gz"
    arguments = ["export-receipts", "--account-id", "led-stdout", "--format", "archive"]
    assert stack.ggen(*arguments, "--output", str(path)).returncode == 0
    piped = subprocess.run(
        [*GGEN, *arguments], env=stack.environment, capture_output=True, check=True
    )

    assert piped.stdout == path.read_bytes()


def test_keys_are_rotated_while_everything_runs(stack: Stack) -> None:
    stack.subscribe("led-keys")
    before = json.loads(stack.ggen("keys", "list", "--json").stdout)[0]["key_id"]
    until(lambda: _verify(stack, "led-keys")[1]["sealed"] == 1)  # signed with the former key

    rotated = json.loads(stack.ggen("keys", "rotate", "--json").stdout)
    stack.signal("led-keys", {"signal_id": "s", "type": "demo.succeed", "payload": {}})

    assert rotated["previous_key_id"] == before
    until(lambda: stack.receipts("led-keys", operation="key_rotated"))
    until(lambda: stack.receipts("led-keys", operation="action_complete"))
    assert stack.receipts("_system", operation="key_rotated")[0]["key_id"] == rotated["key_id"]
    code, verified = _verify(stack, "led-keys")
    assert (code, verified["findings"]) == (0, [])
    assert _verify(stack, "_system")[0] == 0
    stored = stack.read(
        f"/v1/tenants/led-keys/receipts/{stack.receipts('led-keys', operation='action_complete')[0]['receipt_id']}"
    )
    assert stored["key_id"] == rotated["key_id"]
    listed = json.loads(stack.ggen("keys", "list", "--json").stdout)
    assert [key["in_use"] for key in listed[:2]] == [True, False]
    future = stack.ggen("keys", "rotate", "--leaked-at", "2999-01-01")
    assert (future.returncode, "future" in future.stderr) == (2, True)


def test_a_tampered_receipt_is_broken_and_says_where(stack: Stack) -> None:
    receipt = stack.subscribe("led-tampered")
    assert _verify(stack, "led-tampered")[0] == 0
    _spoil(stack, receipt["receipt_id"], "professional", "enterprise")

    told = stack.ggen(
        "verify-receipt", "--receipt-id", receipt["receipt_id"], "--account-id", "led-tampered"
    )
    assert told.returncode == 1
    assert "BROKEN immutability" in told.stdout
    ledger = stack.ggen("verify-ledger", "--account-id", "led-tampered")
    assert ledger.returncode == 1
    assert f"receipt {receipt['receipt_id']} (leaf 0)" in ledger.stdout
    archive = stack.ggen("export-receipts", "--account-id", "led-tampered", "--format", "archive")
    assert (archive.returncode, archive.stdout) == (1, "")
    assert receipt["receipt_id"] in archive.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["verify-ledger", "--account-id", "nobody"], 2, "no ledger of nobody"),
        (["verify-receipt", "--receipt-id", "x", "--account-id", "nobody"], 2, "has no receipt x"),
        (["export-receipts", "--account-id", "nobody", "--format", "archive"], 2, "nothing"),
        (["export-receipts", "--account-id", "nobody", "--since", "then"], 2, "no time"),
        (
            ["export-receipts", "--account-id", "nobody", "--format", "archive", "--limit", "1"],
            2,
            "is whole",
        ),
        (["verify-archive", __file__, "--trust", __file__], 2, "not"),
        (["keys", "rotate", "--leaked-at", "then"], 2, "no time"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_answered_is_one_line(
    stack: Stack, arguments: list[str], code: int, says: str
) -> None:
    done = stack.ggen(*arguments)

    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def left(tmp_path: Path) -> Stack:
    """A state directory whose stack no longer runs, with one sealed receipt and one that is not."""
    stack = new_stack(tmp_path)
    assert stack.ggen("up", "--detach").returncode == 0
    stack.subscribe("left")
    assert _verify(stack, "left")[0] == 0
    assert stack.ggen("down").returncode == 0
    ports = open_ports(Settings(state_dir=stack.state, valkey_port=stack.valkey_port))
    emit(ports, "after", account_id="left")
    ports.documents.close()
    return stack


def test_without_a_stack_what_is_not_sealed_is_never_called_valid_and_is_sealed_by_the_next_start(
    left: Stack, tmp_path: Path
) -> None:
    exported = json.loads(left.ggen("export-receipts", "--account-id", "left").stdout)
    assert [item["proof"]["index"] for item in exported] == [0, None]
    sealed, unsealed = (item["receipt_id"] for item in exported)

    one = left.ggen("verify-receipt", "--receipt-id", unsealed, "--account-id", "left")
    assert one.returncode == 6
    assert "-      inclusion     not sealed yet" in one.stdout
    assert (
        left.ggen("verify-receipt", "--receipt-id", sealed, "--account-id", "left").returncode == 0
    )
    code, verified = _verify(left, "left")
    assert (code, verified["verdict"]) == (6, "valid, 1 not sealed yet")
    path = tmp_path / "a.tar.gz"
    archived = left.ggen(
        "export-receipts", "--account-id", "left", "--format", "archive", "--output", str(path)
    )
    assert (archived.returncode, path.exists()) == (6, True)
    assert "1 receipts are not sealed yet, and not in it" in archived.stderr

    assert left.ggen("up", "--detach").returncode == 0
    ports = open_ports(Settings(state_dir=left.state, valkey_port=left.valkey_port))
    until(lambda: StoredLog.of(ports, "left").newest_signed().tree_size == 2, 20)  # type: ignore[union-attr]
    ports.documents.close()
    assert _verify(left, "left")[0] == 0
    assert left.ggen("down").returncode == 0

    (left.state / "pins" / "left.checkpoint").write_text("spoilt\n")
    spoilt = left.ggen("verify-ledger", "--account-id", "left")
    assert (spoilt.returncode, "checkpoint this machine saw last" in spoilt.stderr) == (2, True)


def test_a_store_that_does_not_answer_is_neither_valid_nor_broken(tmp_path: Path) -> None:
    stack = new_stack(tmp_path, GGEN_DOCUMENTS_URL="sqlite:///nowhere/at/all/documents.db")
    from adapters.local.key_files import KeyFiles
    from adapters.local.secret_files import SecretFiles

    SecretFiles(stack.state / "secrets").create_missing()
    KeyFiles(stack.state / "keys", "ledger.example").create_missing()

    for command in (["verify-ledger"], ["verify-receipt", "--receipt-id", "x"]):
        assert stack.ggen(*command, "--account-id", "acme").returncode == 5
