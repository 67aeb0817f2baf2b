"""Signals that come at the same time: admitted and stored together, each with its own answer."""

import dataclasses
import signal
from collections.abc import Callable

import pytest
import redis

from governor import paths
from governor.errors import InputError, OutageError
from ports import Ports
from tasks.actions.admit import submit, submit_all
from tasks.actions.execute import execute
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.actions import counted, operations, signal_of
from tests.support.faults import Fault, Watched, WatchedDocuments, Writes, die
from tests.support.runs import subscribe
from tests.support.stores import Stores


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def test_signals_that_come_at_once_have_their_own_answers_in_order(ports: Ports) -> None:
    known = submit(ports, signal_of("known"))
    asked = [
        signal_of("new"),
        signal_of("known"),
        signal_of("known", other=1),
        signal_of("unreadable", n=2**60 + 1),
        signal_of("refused", "demo.unknown"),
        signal_of("new"),
        signal_of("bad", "demo.sleep", seconds="long"),
        signal_of("last"),
    ]

    new, again, other, unreadable, refused, twice, bad, last = submit_all(ports, asked)

    assert again == known
    assert new == twice == paths.action_id("acme", "new")
    codes = [getattr(each, "code", each) for each in (other, unreadable, refused, bad)]
    assert codes == ["conflict", "not-canonical", "not-permitted", "payload-invalid"]
    for action_id in (known, str(new), str(last)):
        execute(ports, "acme", action_id)
        assert operations(ports, action_id) == ["action_complete"]
    assert counted(ports) == (0, 3)


def test_what_one_signal_finds_is_news_for_those_that_came_with_it(
    ports: Ports, valkey: Valkey
) -> None:
    redis.Redis.from_url(valkey.url).delete("ggen:governor:acme")  # Memory does not know it

    answers = submit_all(ports, [signal_of(f"s{n}") for n in range(4)])

    assert answers == [paths.action_id("acme", f"s{n}") for n in range(4)]
    assert counted(ports) == (4, 4)


def test_an_equal_signal_is_judged_by_what_became_of_the_one_before_it(ports: Ports) -> None:
    bad, good = (
        signal_of("same", "demo.sleep", seconds="long"),
        signal_of("same", "demo.sleep", seconds=0),
    )

    refused, accepted = submit_all(ports, [bad, good])

    assert isinstance(refused, InputError)
    assert accepted == paths.action_id("acme", "same")
    assert counted(ports) == (1, 1)


def test_of_signals_that_come_at_once_no_more_are_admitted_than_fit(ports: Ports) -> None:
    answers = submit_all(ports, [signal_of(f"s{n}") for n in range(23)])

    assert answers[:20] == [paths.action_id("acme", f"s{n}") for n in range(20)]
    assert [getattr(each, "code", each) for each in answers[20:]] == ["concurrency-exceeded"] * 3
    assert counted(ports) == (20, 20)
    assert ports.dispatch.depth("acme") == 20


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", [1, 1000])
def test_a_commit_of_signals_that_came_at_once_is_repeated_and_lands_once(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports], fault: Fault, failing: int
) -> None:
    asked = [signal_of(f"s{n}") for n in range(3)]

    answers = submit_all(faulty(fault, set(range(1, failing + 1))), asked)

    is_away = failing > 1
    codes = [each.code for each in answers if isinstance(each, OutageError)]
    assert codes == (["injected"] * 3 if is_away else [])
    ids = [paths.action_id("acme", each.signal_id) for each in asked]
    assert [ports.documents.get(paths.action_path("acme", each)) is None for each in ids] == (
        [is_away and fault == "lost"] * 3
    )
    assert submit_all(ports, asked) == ids
    for action_id in ids:
        execute(ports, "acme", action_id)
        assert operations(ports, action_id) == ["action_complete"]
    assert counted(ports) == (0, 3)


def test_a_store_that_does_not_answer_is_asked_once_for_signals_that_came_at_once(
    ports: Ports,
) -> None:
    submit_all(ports, [signal_of(f"s{n}") for n in range(20)])
    asked = []

    def away(path: str) -> None:
        asked.append(path)
        raise OutageError("documents-unavailable", "no answer")

    documents = Watched(ports.documents, Writes(0, "lost", lambda: None))
    documents.get = away  # type: ignore[attr-defined]
    answers = submit_all(
        dataclasses.replace(ports, documents=documents),  # type: ignore[arg-type]
        [signal_of(f"more-{n}") for n in range(8)],
    )

    assert [getattr(each, "code", each) for each in answers] == ["documents-unavailable"] * 8
    assert len(asked) == 1


def _submit_and_die(ports: Ports, fault: Fault) -> None:
    documents = WatchedDocuments(ports.documents, Writes(1, fault, die))
    submit_all(
        dataclasses.replace(ports, documents=documents),  # type: ignore[arg-type]
        [signal_of(f"s{n}") for n in range(3)],
    )


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_an_ingress_that_dies_at_their_commit_leaves_all_of_them_or_none(
    ports: Ports, stores: Stores, fault: Fault
) -> None:
    dying = stores.process(_submit_and_die, fault)
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    ids = [paths.action_id("acme", f"s{n}") for n in range(3)]
    found = [ports.documents.get(paths.action_path("acme", each)) for each in ids]
    assert [each is None for each in found] == [fault == "lost"] * 3

    assert submit_all(ports, [signal_of(f"s{n}") for n in range(3)]) == ids
    for action_id in ids:
        execute(ports, "acme", action_id)
        assert operations(ports, action_id) == ["action_complete"]
    assert counted(ports) == (0, 3)
