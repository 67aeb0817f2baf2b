"""Kill something in the middle and look: nothing lost, nothing done twice, nobody touched anything."""

import json
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
import redis

from tests.stack.conftest import Stack, created
from tests.stack.waiting import until

FINAL = ("complete", "failed", "rolled_back")


@pytest.fixture(autouse=True)
def _ready_again(stack: Stack) -> Iterator[None]:
    yield
    until(lambda: stack.ggen("status").returncode == 0, 60)


def _kill(stack: Stack, *names: str) -> None:
    supervisor = psutil.Process(int((stack.state / "run" / "supervisord.pid").read_text()))
    for process in supervisor.children():
        if process.environ().get("SUPERVISOR_PROCESS_NAME") in names:
            for member in [*process.children(), process]:
                member.kill()


def _flush(stack: Stack) -> None:
    client = redis.Redis(port=stack.valkey_port, password=stack.secrets.read("valkey.password"))
    for database in (0, 1):  # the queue and Memory; what waits on a topic is a store of truth
        client.select(database)
        client.flushdb()
    client.close()


def _starts(stack: Stack) -> Counter[str]:
    file = stack.state / "demo-actions.jsonl"
    lines = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    return Counter(line["action_id"] for line in lines if line["event"] == "start")


@pytest.mark.parametrize("harm", ["workers", "valkey", "wipe"])
def test_actions_under_way_all_end_once_whatever_is_killed(stack: Stack, harm: str) -> None:
    account = f"kill-{harm}"
    stack.subscribe(account, "enterprise")
    before = _starts(stack)
    locations = [
        stack.signal(
            account, {"signal_id": f"s{n}", "type": "demo.sleep", "payload": {"seconds": 0.4}}
        ).headers["Location"]
        for n in range(24)
    ]
    until(lambda: (_starts(stack) - before).total() >= 8)

    if harm == "wipe":
        _flush(stack)
    else:
        _kill(stack, *(("actions", "runbooks", "health") if harm == "workers" else ("valkey",)))

    states = Counter(
        until(lambda at=at: s if (s := stack.read(at)["state"]) in FINAL else None, 60)  # type: ignore[misc]
        for at in locations
    )
    assert states.total() == 24
    assert states["complete"] >= 14
    assert set((_starts(stack) - before).values()) == {1}
    ends = Counter(
        r["action_id"]
        for r in stack.receipts(account, limit=1000)
        if r["operation"] in ("action_complete", "action_timeout", "action_failed")
    )
    assert len(ends) == 24
    assert set(ends.values()) == {1}
    until(lambda: stack.read(f"/v1/tenants/{account}")["in_flight_actions"] == 0)


def test_a_subscription_survives_the_death_of_its_worker(stack: Stack) -> None:
    answers = []
    for n in range(3):
        _kill(stack, "runbooks")
        answers.append(stack.webhook(created(f"kill-run-{n}")))

    for n, answer in enumerate(answers):
        if answer.status_code == 202:
            run = answer.headers["Location"]
            until(lambda run=run: stack.read(run)["state"] == "complete", 60)  # type: ignore[misc]
        else:
            assert answer.status_code == 200, answer.text
        assert [r["operation"] for r in stack.receipts(f"kill-run-{n}")] == ["entitlement_active"]


def test_a_signal_on_the_topic_survives_the_death_of_pump_and_ingress(stack: Stack) -> None:
    stack.subscribe("kill-pump")
    _kill(stack, "pump", "ingress")
    for n in range(5):
        sent = stack.ggen(
            "send-signal", "--account-id", "kill-pump", "--via", "topic", "--signal-id", f"t{n}"
        )
        assert sent.returncode == 0, sent.stderr

    until(lambda: stack.ggen("status").returncode == 0, 60)
    until(lambda: len(stack.receipts("kill-pump", operation="action_complete", limit=100)) == 5, 60)


def test_a_topic_that_lost_its_stream_keeps_no_other_from_being_read(stack: Stack) -> None:
    stack.subscribe("kill-ghost")
    client = redis.Redis(
        port=stack.valkey_port, db=2, password=stack.secrets.read("valkey.password")
    )
    client.sadd("ggen:topics", "a-ghost")
    sent = stack.ggen("send-signal", "--account-id", "kill-ghost", "--via", "topic")
    assert sent.returncode == 0, sent.stderr

    until(lambda: stack.receipts("kill-ghost", operation="action_complete"))
    until(lambda: not client.sismember("ggen:topics", "a-ghost"))
    client.close()
