"""Policies changed while the stack runs: published, compared, in force in every governor."""

import json
import os
import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from governor.times import instant
from ingress.signature import sign
from tests.stack.conftest import Stack, created
from tests.support.upgrades import BAD
from tests.support.waiting import until

DOCUMENT = json.loads(Path("config/policies/demo-sku.starter.json").read_text())
SKU = "hot-sku"


def _file(folder: Path, version: str, sku_id: str = SKU, **quota: int) -> Path:
    document = {**DOCUMENT, "sku_id": sku_id, "policy_version": version}
    document["quota"] = {**DOCUMENT["quota"], "max_concurrent_actions": 50, **quota}
    path = folder / f"{sku_id}.{version}.json"
    path.write_text(json.dumps(document, indent=2))
    return path


@pytest.fixture(scope="module")
def governors(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    first = _file(tmp_path_factory.mktemp("policies"), "1.0.0")
    published = stack.ggen("policy", "publish", str(first))
    assert published.returncode == 0, published.stderr
    accounts = [f"hot-{n}" for n in range(4)]
    for account_id in accounts:
        event = created(account_id, sku_id=SKU, plan_type="starter")
        assert stack.webhook(event).status_code == 200
    return accounts


def _limit(stack: Stack, account_id: str) -> int:
    (entitlement,) = stack.read(f"/v1/tenants/{account_id}")["entitlements"]
    return int(entitlement["concurrent_actions"])


def test_a_version_is_in_force_everywhere_under_a_steady_load(
    stack: Stack, governors: list[str], tmp_path: Path
) -> None:
    refused: list[Any] = []
    is_over = threading.Event()

    def signals(account_id: str) -> None:
        number = 0
        while not is_over.is_set():
            body = {"signal_id": f"load-{number}", "type": "demo.succeed"}
            answer = stack.signal(account_id, body)
            if answer.status_code not in (202, 429):  # 429: the plan's own limit
                refused.append(answer.text)
            number += 1

    threads = [threading.Thread(target=signals, args=(each,)) for each in governors[:2]]
    for thread in threads:
        thread.start()
    try:
        file = _file(tmp_path, "1.1.0", concurrent_actions=11)
        compared = stack.ggen("policy", "upgrade", str(file), "--dry-run")
        assert "=> compatible" in compared.stdout, compared.stderr
        upgraded = stack.ggen("policy", "upgrade", str(file))
        assert upgraded.returncode == 0, upgraded.stderr
    finally:
        is_over.set()
        for thread in threads:
            thread.join()

    assert refused == []
    assert [_limit(stack, account_id) for account_id in governors] == [11] * 4
    for account_id in governors:
        (told,) = stack.receipts(account_id, operation="policy_upgraded")
        assert told["policy_version"] == "1.1.0"
    status = stack.ggen("policy", "status", SKU, "starter")
    assert "1.1.0: 4 governors" in status.stdout


def _processes(stack: Stack) -> list[dict[str, Any]]:
    told = stack.ggen("policy", "status", SKU, "starter", "--json")
    processes: list[dict[str, Any]] = json.loads(told.stdout)["processes"]
    return processes


def test_a_process_that_stands_still_is_seen_and_answers_once_it_goes_on(
    stack: Stack, governors: list[str], tmp_path: Path
) -> None:
    until(lambda: {each["state"] for each in _processes(stack)} == {"ack"})
    roles = {each["role"]: each["pid"] for each in _processes(stack)}
    assert {"ingress", "actions", "runbooks", "health"} <= roles.keys()

    os.kill(roles["actions"], signal.SIGSTOP)
    try:
        upgraded = stack.ggen(
            "policy", "upgrade", str(_file(tmp_path, "1.1.5", concurrent_actions=11))
        )
        assert upgraded.returncode == 0, upgraded.stderr
        silent = [each["pid"] for each in _processes(stack) if each["state"] == "silent"]
        assert silent == [roles["actions"]]
    finally:
        os.kill(roles["actions"], signal.SIGCONT)

    until(lambda: {each["state"] for each in _processes(stack)} == {"ack"}, 3)
    since = _since(stack)
    answered = {e["role"]: instant(e["answered_at"]) - since for e in _processes(stack)}
    late_s = [e.total_seconds() for role, e in answered.items() if role != "actions"]
    assert max(late_s) < 2, answered


def _since(stack: Stack) -> datetime:
    told = stack.ggen("policy", "status", SKU, "starter", "--json")
    return instant(json.loads(told.stdout)["since"])


def test_a_folder_is_brought_into_force_and_again(
    stack: Stack, governors: list[str], tmp_path: Path
) -> None:
    _file(tmp_path, "1.2.0", concurrent_actions=12)
    _file(tmp_path, "1.10.0", concurrent_actions=13)

    first = stack.ggen("sync", str(tmp_path))
    again = stack.ggen("sync", str(tmp_path))

    assert (first.returncode, again.returncode) == (0, 0), first.stdout + first.stderr
    assert "1.10.0 is in force already" in again.stdout
    assert "which is newer" in again.stdout
    until(lambda: [_limit(stack, account_id) for account_id in governors] == [13] * 4)
    listed = stack.ggen("policy", "list")
    assert [SKU, "starter", "1.10.0"] in [line.split() for line in listed.stdout.splitlines()]


def test_what_takes_something_away_is_skipped_until_it_is_forced(
    stack: Stack, governors: list[str], tmp_path: Path
) -> None:
    file = _file(tmp_path, "2.0.0", monthly_actions=999)

    skipped = stack.ggen("policy", "upgrade", str(file))
    assert (skipped.returncode, "quota-lowered" in skipped.stderr) == (4, True)
    headers, row = stack.ggen("policy", "pending").stdout.splitlines()
    assert headers.split()[:3] == ["sku", "plan", "version"]
    assert row.split() == [SKU, "starter", "2.0.0", "quota-lowered"]
    compared = json.loads(stack.ggen("policy", "upgrade", str(file), "--dry-run", "--json").stdout)
    assert not compared["is_compatible"]
    unread = stack.ggen("policy", "upgrade", str(file), "--force")
    assert (unread.returncode, "--report" in unread.stderr) == (2, True)

    words = ("--force", "--reason", "agreed with all customers", "--report")
    forced = stack.ggen("policy", "upgrade", str(file), *words, compared["report_sha256"])

    assert forced.returncode == 0, forced.stderr
    assert stack.ggen("policy", "pending").stdout.strip() == "nothing waits"
    assert [e["operation"] for e in stack.receipts("_system", operation="policy_forced")]


def _post(stack: Stack, body: bytes, key: str | None = None) -> httpx.Response:
    signature = sign(body, key or stack.secrets.policy_secrets()[0])
    headers = {"X-Signature": signature, "Content-Type": "application/json"}
    with stack.http() as http:
        return http.post("/v1/policies", content=body, headers=headers)


def test_a_policy_comes_by_http(stack: Stack, governors: list[str], tmp_path: Path) -> None:
    policy = json.loads(_file(tmp_path, "3.0.0", concurrent_actions=20).read_text())
    body = {"new_policy": policy, "policy_version": "3.0.0", "compatibility_check": False}

    answer = _post(stack, json.dumps(body).encode())

    assert answer.status_code == 200, answer.text
    assert answer.json()["operation"] == "policy_broadcast"
    assert _post(stack, json.dumps(body).encode()).json()["outcome"] == "in-force"
    status = stack.read(f"/v1/policies/{SKU}/starter")
    assert (status["in_force"], status["governors"]) == ("3.0.0", {"3.0.0": 4})
    lower = {
        **policy,
        "policy_version": "3.1.0",
        "quota": {**policy["quota"], "monthly_actions": 1},
    }
    skipped = _post(
        stack, json.dumps({**body, "new_policy": lower, "policy_version": "3.1.0"}).encode()
    )
    assert (skipped.status_code, skipped.json()["receipt"]["operation"]) == (
        409,
        "policy_upgrade_skipped",
    )
    assert _limit(stack, governors[0]) == 20


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"{", 400, "not-json"),
        (b'{"new_policy": {}, "policy_version": "1.0.0"}', 422, "version-differs"),
        (b'{"new_policy": {"policy_version": "1.0.0"}, "policy_version": "1.0.0"}', 422, "policy"),
        (b'{"new_policy": {}, "policy_version": "1.0"}', 422, "policy_version"),
        (b'{"new_policy": {}, "policy_version": "1.0.0", "x": 1}', 422, "x"),
        (b" " * ((1 << 20) + (32 << 10) + 1), 413, "at most"),
    ],
)
def test_a_bad_policy_by_http_changes_nothing(
    stack: Stack, body: bytes, code: int, says: str
) -> None:
    answer = _post(stack, body)

    assert (answer.status_code, says in answer.text) == (code, True), answer.text


def _put(stack: Stack, name: str, content: bytes, token: str | None = None) -> httpx.Response:
    """What the bucket's notification does, once an object is put into it."""
    path = stack.state / "objects" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": "registry",
        "objectId": name,
        "objectGeneration": "1",
        "payloadFormat": "NONE",
    }
    message = {"attributes": attributes, "messageId": "1", "data": ""}
    bearer = {"Authorization": f"Bearer {token or stack.secrets.push_token()}"}
    with stack.http() as http:
        push = {"message": message, "subscription": "projects/p/subscriptions/policies"}
        return http.post("/v1/pubsub/policies", json=push, headers=bearer)


def test_no_door_takes_a_bad_policy_and_all_say_the_same(stack: Stack, tmp_path: Path) -> None:
    for name, document in BAD.items():
        (tmp_path / f"{name}.json").write_bytes(document)

    synced = stack.ggen("sync", str(tmp_path), "--json")
    assert synced.returncode == 2
    codes = {Path(row["file"]).stem: row["error"] for row in json.loads(synced.stdout)}
    assert codes.keys() == BAD.keys()
    assert set(codes.values()) <= {
        "not-json",
        "not-canonical",
        "policy-invalid",
        "policy-unknown-handler",
    }

    for name, document in BAD.items():
        body = b'{"new_policy": ' + document + b', "policy_version": "1.1.0"}'
        answer = _post(stack, body)
        assert answer.status_code in (400, 413, 422), (name, answer.text)
        if answer.status_code == 422 and name != "pre-release":  # which differs from 1.1.0, too
            assert answer.json()["type"].endswith(codes[name]), (name, answer.text)
        assert _put(stack, f"incoming/{name}.json", document).status_code == 204

    assert list((stack.state / "objects/policies/demo-sku/starter").iterdir()) == [
        stack.state / "objects/policies/demo-sku/starter/1.0.0.json"
    ]
    for command in ("publish", "upgrade"):
        refused = stack.ggen("policy", command, str(tmp_path / "key-twice.json"))
        assert refused.returncode == 2, refused.stdout


def test_a_policy_that_is_put_into_the_bucket_comes_into_force(
    stack: Stack, tmp_path: Path
) -> None:
    sku_id = "bucket-sku"
    for number in ("1.0.0", "1.1.0"):
        document = _file(tmp_path, number, sku_id=sku_id).read_bytes()
        assert _put(stack, f"incoming/{number}.json", document, "wrong").status_code == 401
        assert _put(stack, f"incoming/{number}.json", document).status_code == 204

    def in_force() -> str:
        token = {"Authorization": f"Bearer {stack.secrets.api_token()}"}
        with stack.http() as http:
            answer = http.get(f"/v1/policies/{sku_id}/starter", headers=token)
        return str(answer.json()["in_force"])

    until(lambda: in_force() == "1.1.0")


def test_who_may_not_bring_policies_is_refused(stack: Stack) -> None:
    body = b'{"new_policy": {}, "policy_version": "1.0.0"}'

    assert _post(stack, body, "another-key-of-some-length").status_code == 400
    assert _post(stack, body, stack.secrets.webhook_secrets()[0]).status_code == 400
    with stack.http() as http:
        assert http.get(f"/v1/policies/{SKU}/starter").status_code == 401


def test_a_version_that_fails_under_load_is_left_by_itself(stack: Stack, tmp_path: Path) -> None:
    sku_id = "bake-sku"
    first = _file(tmp_path, "1.0.0", sku_id=sku_id)
    assert stack.ggen("policy", "publish", str(first)).returncode == 0
    for account_id in ("bake-0", "bake-1"):
        event = created(account_id, sku_id=sku_id, plan_type="starter")
        assert stack.webhook(event).status_code == 200
    upgraded = stack.ggen("policy", "upgrade", str(_file(tmp_path, "1.1.0", sku_id=sku_id)))
    assert upgraded.returncode == 0, upgraded.stderr

    for number in range(25):
        body = {
            "signal_id": f"bad-{number}",
            "type": "demo.fail",
            "payload": {"recoverable": True},
        }
        until(lambda body=body: stack.signal("bake-0", body).status_code == 202)  # type: ignore[misc]

    def held() -> dict[str, int]:
        told = stack.ggen("policy", "status", sku_id, "starter", "--json")
        governors: dict[str, int] = json.loads(told.stdout)["governors"]
        return governors

    until(lambda: held() == {"1.1.1": 2}, 30)
    (baked,) = [
        each
        for each in stack.receipts("_system", operation="policy_baked")
        if each["sku_id"] == sku_id
    ]
    assert (baked["status"], baked["returns_to"]) == ("returning", "1.0.0")
