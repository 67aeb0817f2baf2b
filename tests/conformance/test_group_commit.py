"""Commits of threads that wait together: one transaction, and each its own answer."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.local.group_commit import GroupCommit
from adapters.local.sqlite import SqliteDocuments
from governor.errors import ConflictError, OutageError
from ports.documents import Create, Update

THREADS = 40
Answer = list[str] | BaseException


def test_of_many_threads_each_commit_holds_whole_or_not_at_all(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path / "documents.db", timeout_s=5)
    documents.commit([Create("a/counted", {"by": "nobody"})])
    start = threading.Barrier(THREADS)

    def commit(number: int) -> str:
        start.wait()
        found = documents.get("a/counted")
        assert found
        writes = [
            Create(f"a/own-{number}", {"number": number}),
            Update("a/counted", {"by": number}, found.revision),
        ]
        try:
            revision = documents.commit(writes)[0]
        except ConflictError:
            return "conflict"
        kept = documents.get(f"a/own-{number}")
        assert kept
        assert kept.revision == revision
        return "landed"

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(commit, range(THREADS)))

    landed = [number for number, answer in enumerate(answers) if answer == "landed"]
    assert landed
    for number, answer in enumerate(answers):
        assert (documents.get(f"a/own-{number}") is not None) is (answer == "landed")
    last = documents.get("a/counted")
    assert last
    assert last.data["by"] in landed
    documents.close()


class _Carrier:
    """Carries out numbers; each turn waits until a test lets it go on."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.go_on = threading.Semaphore(0)
        self.fails = False

    def __call__(self, work: Sequence[int]) -> Sequence[Answer]:
        self.turns.append(list(work))
        self.go_on.acquire()
        if self.fails:
            raise OutageError("away", "it may have landed")
        return [ConflictError("odd", "odd") if number % 2 else [str(number)] for number in work]


def _begin(
    group: GroupCommit[int, list[str]], number: int, within_s: float = 10
) -> tuple[threading.Thread, list[object]]:
    told: list[object] = []

    def commit() -> None:
        try:
            told.append(group.commit(number, within_s))
        except (ConflictError, OutageError) as error:
            told.append(error.code)

    thread = threading.Thread(target=commit)
    thread.start()
    return thread, told


def _wait_for(group: GroupCommit[int, list[str]], count: int) -> None:
    while len(group._waiting) < count:
        pass


def test_what_comes_meanwhile_is_the_next_turn_and_each_has_its_own_answer() -> None:
    carrier = _Carrier()
    group = GroupCommit[int, list[str]](carrier)
    first = _begin(group, 0)
    while not carrier.turns:
        pass
    rest = []
    for number in (1, 2, 3):
        rest.append(_begin(group, number))
        _wait_for(group, number)
    carrier.go_on.release(2)
    for thread, _ in (first, *rest):
        thread.join(10)

    assert carrier.turns == [[0], [1, 2, 3]]
    assert [told for _, told in (first, *rest)] == [[["0"]], ["odd"], [["2"]], ["odd"]]


def test_an_outage_is_everybodys_and_the_next_turn_is_led_all_the_same() -> None:
    carrier = _Carrier()
    group = GroupCommit[int, list[str]](carrier)
    carrier.fails = True
    first = _begin(group, 0)
    while not carrier.turns:
        pass
    second = _begin(group, 2)
    _wait_for(group, 1)
    carrier.go_on.release()
    first[0].join(10)
    carrier.fails = False
    carrier.go_on.release()
    second[0].join(10)

    assert (first[1], second[1]) == (["away"], [["2"]])


def test_one_that_gives_up_is_not_carried_out_and_leaves_the_others_their_turn() -> None:
    carrier = _Carrier()
    group = GroupCommit[int, list[str]](carrier)
    first = _begin(group, 0)
    while not carrier.turns:
        pass
    second = _begin(group, 2, 0.05)
    second[0].join(10)
    third = _begin(group, 4)
    _wait_for(group, 1)
    carrier.go_on.release(2)
    for thread, _ in (first, third):
        thread.join(10)

    assert carrier.turns == [[0], [4]]
    assert (second[1], third[1]) == (["documents-unavailable"], [["4"]])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_leader_that_is_interrupted_leaves_nobody_waiting(error: type[BaseException]) -> None:
    turns = 0

    def carry_out(work: Sequence[int]) -> Sequence[Answer]:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise error
        return [[str(number)] for number in work]

    group = GroupCommit[int, list[str]](carry_out)
    with pytest.raises(error):
        group.commit(0, 1)

    assert group.commit(2, 1) == ["2"]


def test_one_that_gives_up_just_as_it_is_to_lead_hands_on(monkeypatch: pytest.MonkeyPatch) -> None:
    group = GroupCommit[int, list[str]](lambda work: [[str(number)] for number in work])
    group._is_led = True  # another thread leads
    waits = threading.Event.wait

    def promoted(event: threading.Event, timeout: float | None = None) -> bool:
        came = waits(event, 0)
        group._waiting[0].leads = True  # by the leader that ends just now
        return came

    monkeypatch.setattr(threading.Event, "wait", promoted)
    assert group.commit(2, 0.01) == ["2"]
    assert group.commit(4, 0.01) == ["4"]


def test_a_fault_of_one_commit_is_no_fault_of_the_others() -> None:
    carrier = _Carrier()

    def carry_out(work: Sequence[int]) -> Sequence[Answer]:
        answers = carrier(work)
        if 13 in work:
            raise OverflowError("of one of them")
        return answers

    group = GroupCommit[int, list[str]](carry_out)
    first = _begin(group, 0)
    while not carrier.turns:
        pass
    bad, good = threading.Thread(target=_overflows, args=(group,)), None
    bad.start()
    _wait_for(group, 1)
    good = _begin(group, 2)
    _wait_for(group, 2)
    carrier.go_on.release(10)
    for thread in (first[0], bad, good[0]):
        thread.join(10)

    assert good[1] == [["2"]]


def _overflows(group: GroupCommit[int, list[str]]) -> None:
    with pytest.raises(OverflowError):
        group.commit(13, 10)
