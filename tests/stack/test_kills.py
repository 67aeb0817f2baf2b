"""Kill something in the middle and look: nothing lost, nothing done twice, nobody touched anything."""

from collections.abc import Iterator

import pytest
import redis

from bench.chaos.kills import ACTIONS, HARMS, harmed, kill
from bench.stack import Driver
from tests.stack.conftest import Stack, created
from tests.support.waiting import until

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def _ready_again(stack: Stack) -> Iterator[None]:
    yield
    until(lambda: stack.ggen("status").returncode == 0, 60)


@pytest.mark.parametrize("harm", HARMS)
def test_actions_under_way_all_end_once_whatever_is_killed(stack: Stack, harm: str) -> None:
    driver = Driver(stack.settings)
    with driver.http:
        told = harmed(driver, harm)

    assert told["ended_once"] == ACTIONS
    assert told["started_twice"] == 0
    assert told["complete"] >= 40
    until(lambda: stack.read(f"/v1/tenants/kills-{harm}")["in_flight_actions"] == 0)


def test_a_subscription_survives_the_death_of_its_worker(stack: Stack) -> None:
    answers = []
    for n in range(3):
        kill(stack.settings, "runbooks")
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
    kill(stack.settings, "pump", "ingress")
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
