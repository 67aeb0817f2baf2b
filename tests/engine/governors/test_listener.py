"""Each process hears of a version, says whether it can use it, and refuses once it cannot know."""

import dataclasses
import json

import pytest
import redis

from adapters.valkey.broadcasts import ValkeyHearing
from governor.actions import Action
from governor.errors import OutageError
from ports import Ports
from ports.broadcasts import InForce, Listening
from ports.documents import Update
from tasks.governors import broadcast, policies
from tasks.governors.listener import STALE_AFTER_S, Listener
from tasks.runbooks.upgrade import rollout
from tests.conftest import Valkey
from tests.support import cancel, upgrades
from tests.support.cancel import accept
from tests.support.runs import ACCOUNT, later
from tests.support.upgrades import DOCUMENT, PLAN
from tests.support.waiting import until


@pytest.fixture
def listener(ports: Ports, valkey: Valkey) -> Listener:
    return Listener(later(ports), "ingress", ValkeyHearing(valkey.url))


def _flip(ports: Ports, version: str, digest: str) -> None:
    pointer = policies.pointer_of(ports, *PLAN)
    assert pointer
    told = {**pointer.data, "policy_version": version, "policy_digest": digest}
    ports.documents.commit([Update(pointer.path, told, pointer.revision)])
    broadcast.tell(ports, *PLAN)


def _state(ports: Ports, version: str) -> str:
    (process,) = broadcast.processes(ports, *PLAN, version)
    return process["state"]


def test_a_process_says_at_once_that_it_has_a_version(ports: Ports, listener: Listener) -> None:
    broadcast.tell_all(ports)
    listener.start()
    until(lambda: len(broadcast.processes(ports, *PLAN, "1.0.0")) == 1)
    assert _state(ports, "1.0.0") == "ack"

    done = policies.register(ports, upgrades.version("1.1.0"))
    assert _state(ports, "1.1.0") == "silent"  # nothing is in force that it could have heard of
    _flip(ports, "1.1.0", done.digest)

    until(lambda: _state(ports, "1.1.0") == "ack")
    listener.stop()
    assert broadcast.processes(ports, *PLAN, "1.1.0") == []


def test_a_process_says_why_it_cannot_use_a_version(ports: Ports, listener: Listener) -> None:
    text = json.dumps({**DOCUMENT, "policy_version": "1.1.0"})
    foreign = text.replace('"demo.succeed"', '"crm.of_another_release"').encode()
    ports.objects.create("policies/demo-sku/starter/1.1.0.json", foreign)
    _flip(ports, "1.1.0", "0" * 64)

    listener.confirm()

    (process,) = broadcast.processes(ports, *PLAN, "1.1.0")
    assert (process["state"], process["code"]) == ("nack", "policy-unusable")
    assert "crm.of_another_release" in process["detail"]
    assert [t.name for t in ports.troubles.troubles()] == ["policy-unusable/demo-sku/starter"]


def test_a_registry_that_holds_another_content_is_no_ack(ports: Ports, listener: Listener) -> None:
    policies.register(ports, upgrades.version("1.1.0"))
    _flip(ports, "1.1.0", "0" * 64)

    listener.confirm()

    (process,) = broadcast.processes(ports, *PLAN, "1.1.0")
    assert (process["state"], process["code"]) == ("nack", "another-content")


def test_who_cannot_confirm_for_a_minute_refuses(ports: Ports, listener: Listener) -> None:
    clock = listener._ports.clock
    broadcast.tell_all(ports)
    listener.confirm()
    listener.refuse_if_stale()

    clock.sleep(STALE_AFTER_S + 1)
    with pytest.raises(OutageError, match="could not confirm") as refused:
        listener.refuse_if_stale()
    assert refused.value.code == "policy-stale"

    listener.confirm()
    listener.refuse_if_stale()


def test_what_documents_were_not_asked_for_confirms_nothing(
    ports: Ports, valkey: Valkey, listener: Listener
) -> None:
    """Memory answers, and knows nothing newer than a minute: the health checks have ceased."""
    listener.confirm()  # nobody has ever asked Documents: an older release's health worker
    listener._ports.clock.sleep(STALE_AFTER_S + 1)
    listener.refuse_if_stale()
    broadcast.tell_all(ports)
    listener.confirm()

    listener._ports.clock.sleep(STALE_AFTER_S + 1)
    asked = redis.Redis.from_url(valkey.url, decode_responses=True).get("ggen:policies:asked")
    redis.Redis.from_url(valkey.url).set("ggen:policies:asked", int(str(asked)) - 61_000)
    listener.confirm()

    with pytest.raises(OutageError, match="could not confirm"):
        listener.refuse_if_stale()


def test_a_process_that_ended_is_forgotten(ports: Ports) -> None:
    claim = ports.processes.claim(ports.clock.now()).model_copy(update={"process_started": 1.0})
    ports.broadcasts.answer(Listening("actions", claim, ()))

    assert broadcast.processes(ports, *PLAN, "1.0.0") == []
    assert ports.broadcasts.answers() == []


def test_a_lower_version_told_late_takes_nothing_back(ports: Ports) -> None:
    def known() -> list[InForce]:
        return ports.broadcasts.in_force()[0]

    for version in ("1.9.0", "1.10.0", "1.9.0"):
        ports.broadcasts.broadcast([InForce("a~b", version, version)])
    assert known() == [InForce("a~b", "1.10.0", "1.10.0")]


def _flipped(ports: Ports, version: str) -> str:
    """A version that has just come into force: no governor was looked at yet."""
    run_id = upgrades.begin(ports, upgrades.version(version)).run_id
    for step in ("check", "flip"):
        assert cancel.run_link(ports, cancel.RUNBOOKS, f"upgrade_policy.{step}", run_id).is_done
    broadcast.tell(ports, *PLAN)
    return run_id


def test_a_governor_takes_the_version_at_its_first_admission(ports: Ports) -> None:
    ports = upgrades.subscribed(ports, ACCOUNT, "beta")
    run_id = _flipped(ports, "1.1.0")

    action_id = accept(ports, "s-1")

    found = ports.documents.get(f"tenants/{ACCOUNT}/actions/{action_id}")
    assert found
    action = Action.stored(found.data)
    digest = policies.load_named(ports, *PLAN, "1.1.0").digest
    assert (action.policy_version, action.policy_digest) == ("1.1.0", digest)
    assert ports.governors.in_flight(ACCOUNT, ["demo-sku"]) == 1
    assert ports.governors.used(ACCOUNT, "demo-sku", action.month) == 1
    assert rollout.status(ports, *PLAN)["governors"] == {"1.0.0": 1, "1.1.0": 1}

    cancel.to_the_end(ports, run_id)
    for account_id in (ACCOUNT, "beta"):
        assert len(cancel.of_kind(ports, "policy_upgraded", account_id)) == 1
    (told,) = cancel.of_kind(ports, "policy_broadcast", "_system")
    assert (told["governors_updated"], told["governors_failed"]) == (2, 0)


def test_a_governor_that_refuses_at_its_admission_goes_on_under_its_own(ports: Ports) -> None:
    ports = upgrades.subscribed(ports, ACCOUNT)
    upgrades.change(ports, operating_state="elsewhere")
    run_id = _flipped(ports, "1.1.0")
    asked = list[str]()
    counted = dataclasses.replace(ports, documents=_Counted(ports.documents, asked))

    versions = [_version_of(counted, accept(counted, f"s-{n}")) for n in range(3)]

    assert versions == ["1.0.0"] * 3
    assert asked.count(f"tenants/{ACCOUNT}/entitlements/demo-sku") == 1  # it is not offered again
    cancel.to_the_end(ports, run_id)
    assert len(cancel.of_kind(ports, "policy_rollback", ACCOUNT)) == 1
    (told,) = cancel.of_kind(ports, "policy_broadcast", "_system")
    assert (told["governors_updated"], told["governors_failed"]) == (0, 1)


def _version_of(ports: Ports, action_id: str) -> str:
    found = ports.documents.get(f"tenants/{ACCOUNT}/actions/{action_id}")
    assert found
    return Action.stored(found.data).policy_version


class _Counted:
    """Documents that note what is asked for by its path."""

    def __init__(self, inner: object, asked: list[str]) -> None:
        self._inner, self._asked = inner, asked

    def get(self, path: str) -> object:
        self._asked.append(path)
        return self._inner.get(path)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)
