"""What every Documents adapter must do."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from adapters.gcp.firestore import FirestoreDocuments
from adapters.local.sqlite import SqliteDocuments
from governor.errors import ConflictError, InputError, OutageError
from ports.documents import MAX_DOCUMENT_BYTES, Create, Delete, Documents, Query, Update, Where
from tests.support.live import new_project

Open = Callable[[], Documents]


def _sqlite(tmp_path: Path, _: pytest.FixtureRequest) -> Open:
    return partial(SqliteDocuments, tmp_path / "documents.db", timeout_s=30)


def _firestore(_: Path, request: pytest.FixtureRequest) -> Open:
    host = request.getfixturevalue("firestore")
    return partial(FirestoreDocuments, new_project(), emulator_host=host, timeout_s=30)


@pytest.fixture(params=[_sqlite, _firestore], ids=["sqlite", "firestore"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one and the same new store, in any process."""
    made: Open = request.param(tmp_path, request)
    return made


@pytest.fixture
def open_documents(store: Open) -> Iterator[Open]:
    opened: list[Documents] = []

    def open_one() -> Documents:
        opened.append(store())
        return opened[-1]

    yield open_one
    for documents in opened:
        documents.close()


@pytest.fixture
def documents(open_documents: Open) -> Documents:
    return open_documents()


def test_what_was_committed_is_read_by_everybody(
    documents: Documents, open_documents: Open
) -> None:
    documents.commit([Create("runs/r", {"text": "é\u0000😀", "n": 1.5, "deep": [{"a": None}]})])

    found = open_documents().get("runs/r")

    assert found is not None
    assert found.data == {"text": "é\u0000😀", "n": 1.5, "deep": [{"a": None}]}


def test_what_is_not_there_is_none(documents: Documents) -> None:
    assert documents.get("runs/none") is None


def test_what_comes_after_its_time_is_not_written_and_holds_up_no_other(
    documents: Documents,
) -> None:
    late = Create("runs/late", {}, by_s=time.monotonic())
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(documents.commit, [Create(f"runs/{n}", {})]) for n in range(8)]
        with pytest.raises(ConflictError) as refused:
            documents.commit([Create("runs/beside", {}), late])
        assert all(each.result() for each in others)

    assert refused.value.code == "too-late"
    assert documents.get("runs/late") is documents.get("runs/beside") is None
    assert documents.commit([Create("runs/late", {}, by_s=time.monotonic() + 60)])
    with pytest.raises(ConflictError):  # whichever it says, nothing is written
        documents.commit([Create("runs/late", {"n": 2}, by_s=time.monotonic() - 1)])


def test_an_update_needs_the_revision_it_read(documents: Documents) -> None:
    documents.commit([Create("runs/r", {"n": 0})])
    read = documents.get("runs/r")
    assert read
    documents.commit([Update("runs/r", {"n": 1}, read.revision)])

    with pytest.raises(ConflictError) as refused:
        documents.commit([Update("runs/r", {"n": 2}, read.revision)])

    assert refused.value.code == "stale-revision"
    again = documents.get("runs/r")
    assert again
    assert again.data == {"n": 1}
    assert again.created_at == read.created_at


def test_a_create_needs_an_empty_place(documents: Documents) -> None:
    documents.commit([Create("runs/r", {"n": 0})])

    with pytest.raises(ConflictError) as refused:
        documents.commit([Create("runs/r", {"n": 1})])

    assert refused.value.code == "already-exists"


@pytest.mark.parametrize(
    "write",
    [Update("runs/x", {}, "1"), Delete("runs/x", "1"), Update("runs/x", {}, "not-a-revision")],
)
def test_what_is_not_there_can_neither_be_updated_nor_deleted(
    documents: Documents, write: Update | Delete
) -> None:
    with pytest.raises(ConflictError):
        documents.commit([write])


def test_a_commit_is_all_or_nothing(documents: Documents) -> None:
    documents.commit([Create("runs/b", {})])

    with pytest.raises(ConflictError):
        documents.commit([Create("runs/a", {}), Create("runs/b", {}), Create("runs/c", {})])

    assert documents.get("runs/a") is None
    assert documents.get("runs/c") is None


def test_of_several_commits_each_holds_whole_or_not_at_all(documents: Documents) -> None:
    documents.commit([Create("runs/b", {})])

    first, clash, bad, last = documents.commit_each(
        [
            [Create("runs/a", {"n": 1})],
            [Create("runs/c", {}), Create("runs/b", {})],
            [Create("runs/too-large", {"text": "x" * MAX_DOCUMENT_BYTES})],
            [Create("runs/d", {}), Create("runs/e", {})],
        ]
    )

    assert isinstance(clash, ConflictError)
    assert isinstance(bad, InputError)
    assert documents.get("runs/c") is None
    found = [documents.get(f"runs/{name}") for name in "ade"]
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert [each and each.revision for each in found] == [*first, *last]
    (again,) = documents.commit_each([[Create("runs/a", {})]])
    assert isinstance(again, ConflictError)
    assert documents.commit_each([]) == []


def test_a_deleted_document_may_be_created_again(documents: Documents) -> None:
    documents.commit([Create("runs/r", {"n": 0})])
    read = documents.get("runs/r")
    assert read
    documents.commit([Delete("runs/r", read.revision)])
    documents.commit([Create("runs/r", {"n": 1})])

    assert documents.get("runs/r")


@pytest.mark.parametrize(
    "path",
    ["runs", "runs/a/b", "runs/", "/runs/a", "runs/..", "runs/a b", "runs/é", "runs/" + "a" * 257],
)
def test_a_path_that_is_none_is_refused(documents: Documents, path: str) -> None:
    with pytest.raises(InputError):
        documents.commit([Create(path, {})])


@pytest.mark.parametrize(
    "data",
    [{"x": "a" * MAX_DOCUMENT_BYTES}, {"x": float("nan")}, {"x": object()}, {"x": "\ud800"}],
    ids=["too large", "nan", "no json", "lone surrogate"],
)
def test_what_is_no_document_is_refused_and_nothing_written(
    documents: Documents, data: dict[str, object]
) -> None:
    with pytest.raises(InputError):
        documents.commit([Create("runs/good", {}), Create("runs/bad", data)])

    assert documents.get("runs/good") is None


def test_creation_times_never_decrease_in_commit_order(documents: Documents) -> None:
    for n in range(50):
        documents.commit([Create(f"runs/r{n:02}", {})])

    times = [d.created_at for d in documents.scan(Query("runs"))]

    assert times == sorted(times)
    assert times[0].tzinfo is not None


def test_a_scan_pages_through_a_collection_in_either_direction(documents: Documents) -> None:
    for n in range(7):
        documents.commit([Create(f"tenants/a/receipts/r{n}", {"timestamp": f"t{n // 2}"})])
    documents.commit([Create("tenants/b/receipts/other", {"timestamp": "t0"})])

    for descending in (False, True):
        seen: list[str] = []
        after = None
        while page := documents.scan(
            Query(
                "tenants/a/receipts",
                order_by="timestamp",
                descending=descending,
                after=after,
                limit=2,
            )
        ):
            seen += [d.path for d in page]
            after = (page[-1].data["timestamp"], page[-1].path)
        expected = [f"tenants/a/receipts/r{n}" for n in range(7)]
        assert seen == (expected[::-1] if descending else expected)


def test_a_group_is_scanned_wherever_its_collections_lie(documents: Documents) -> None:
    documents.commit(
        [
            Create("tenants/a/actions/1", {"state": "pending"}),
            Create("tenants/b/actions/2", {"state": "running"}),
            Create("tenants/b/actions/3", {"state": "complete"}),
            Create("tenants/b/receipts/4", {"state": "pending"}),
        ]
    )

    found = documents.scan(
        Query("actions", group=True, where=[Where("state", "in", ("pending", "running"))])
    )

    assert [d.path for d in found] == ["tenants/a/actions/1", "tenants/b/actions/2"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where("n", "==", 2), ["b"]),
        (Where("n", "<=", 2), ["a", "b"]),
        (Where("n", ">=", 2), ["b", "c"]),
        (Where("absent", "==", 1), []),
        (Where("n", "in", ()), []),
    ],
)
def test_conditions(documents: Documents, where: Where, expected: list[str]) -> None:
    documents.commit([Create(f"runs/{x}", {"n": n}) for n, x in enumerate("abc", 1)])

    assert [
        d.path.removeprefix("runs/") for d in documents.scan(Query("runs", where=[where]))
    ] == expected


def test_a_range_orders_by_its_field_and_goes_with_no_other_order(documents: Documents) -> None:
    for name, at in (("x", "t3"), ("y", "t1"), ("z", "t2")):
        documents.commit([Create(f"runs/{name}", {"at": at, "by": name})])
    later = [Where("at", ">=", "t2")]

    assert [d.data["at"] for d in documents.scan(Query("runs", where=later))] == ["t2", "t3"]
    with pytest.raises(InputError):
        documents.scan(Query("runs", where=later, order_by="by"))


def test_a_page_may_begin_before_every_document_of_a_collection(documents: Documents) -> None:
    documents.commit([Create("runs/a", {}), Create("runs/b", {})])

    assert [d.path for d in documents.scan(Query("runs", after=("", "runs/")))] == [
        "runs/a",
        "runs/b",
    ]
    assert [d.path for d in documents.scan(Query("runs", after=("", "runs/a")))] == ["runs/b"]


def test_an_update_that_changes_nothing_changes_the_revision(documents: Documents) -> None:
    (first,) = documents.commit([Create("runs/r", {"n": 1})])
    (second,) = documents.commit([Update("runs/r", {"n": 1}, first)])

    assert first != second
    with pytest.raises(ConflictError):
        documents.commit([Update("runs/r", {"n": 1}, first)])


@pytest.mark.parametrize(
    "data",
    [
        {"lists": [[1, [2]], []]},
        {"__name__": 1, "": 2, "A.b`c": 3},
        {"n": 2**80, "m": -(2**63)},
        {"x": -0.5, "flag": True, "none": None, "one": 1},
        {"long": "é" * 20_000},
        {},
    ],
    ids=["nested lists", "odd names", "large numbers", "scalars", "long text", "nothing"],
)
def test_any_json_comes_back_as_it_was(documents: Documents, data: dict[str, object]) -> None:
    documents.commit([Create("runs/r", data)])

    found = documents.get("runs/r")
    assert found
    assert found.data == data
    assert {k: type(v) for k, v in found.data.items()} == {k: type(v) for k, v in data.items()}


def test_a_field_name_is_never_code(documents: Documents) -> None:
    with pytest.raises(InputError):
        documents.scan(Query("runs", where=[Where("n') OR 1=1 --", "==", 1)]))
    with pytest.raises(InputError):
        documents.scan(Query("runs' OR '1'='1"))


@pytest.mark.parametrize("attempt", range(10))
def test_of_many_threads_that_create_one_document_exactly_one_wins(
    open_documents: Open, attempt: int
) -> None:
    shared, barrier, won = open_documents(), threading.Barrier(8), []

    def race(n: int) -> None:
        barrier.wait()
        try:
            shared.commit([Create("runs/one", {"by": n})])
            won.append(n)
        except ConflictError:
            pass

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = shared.get("runs/one")
    assert found
    assert won == [found.data["by"]]


def _increment(store: Open, times: int) -> None:
    documents = store()
    for _ in range(times):
        while True:
            found = documents.get("runs/counter")
            assert found
            try:
                documents.commit(
                    [Update("runs/counter", {"n": found.data["n"] + 1}, found.revision)]
                )
                break
            except ConflictError:
                continue
    documents.close()


def test_processes_that_count_together_lose_nothing(store: Open) -> None:
    documents = store()
    documents.commit([Create("runs/counter", {"n": 0})])
    documents.close()
    context = multiprocessing.get_context("spawn")

    workers = [context.Process(target=_increment, args=(store, 100)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    counter = documents.get("runs/counter")
    documents.close()
    assert counter
    assert counter.data == {"n": 400}


def test_a_store_that_cannot_be_opened_is_an_outage(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path / "nowhere" / "documents.db")

    with pytest.raises(OutageError):
        documents.get("runs/r")
    with pytest.raises(OutageError):
        documents.commit([Create("runs/r", {})])


def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "documents.db").write_text("not a database, " * 100)

    with pytest.raises(OutageError):
        SqliteDocuments(tmp_path / "documents.db").get("runs/r")


def test_a_revision_is_never_used_again_not_even_after_a_deletion(documents: Documents) -> None:
    documents.commit([Create("runs/r", {"n": 0})])
    former = documents.get("runs/r")
    assert former
    documents.commit([Delete("runs/r", former.revision)])
    documents.commit([Create("runs/r", {"n": 1})])

    with pytest.raises(ConflictError):
        documents.commit([Update("runs/r", {"n": 2}, former.revision)])


def test_a_threads_connection_ends_with_it(open_documents: Open) -> None:
    documents = open_documents()
    documents.commit([Create("runs/r", {})])
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    for _ in range(5):
        threads = [threading.Thread(target=documents.get, args=("runs/r",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(list(descriptors.iterdir())) <= before + 30  # 300 if each were kept


def test_a_fork_with_an_open_connection_is_refused_before_it_loses_anything(tmp_path: Path) -> None:
    documents = SqliteDocuments(tmp_path / "documents.db")
    documents.commit([Create("runs/r", {})])
    context = multiprocessing.get_context("fork")

    child = context.Process(target=documents.commit, args=([Create("runs/lost", {})],))
    child.start()
    child.join()

    assert child.exitcode == 1
    assert documents.get("runs/lost") is None
    documents.close()


def test_documents_come_in_the_order_of_their_commits_page_by_page(documents: Documents) -> None:
    for n in range(5):
        documents.commit([Create(f"tenants/a/receipts/{9 - n}-{m}", {"n": n}) for m in ("x", "y")])
    documents.commit([Create("tenants/b/receipts/0", {}), Create("tenants/a/seals/0", {})])

    found, after = [], None
    while page := documents.created("tenants/a/receipts", after=after, limit=3):
        found += page
        after = (page[-1].created_at, page[-1].path)

    assert [d.data["n"] for d in found] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [d.path[-1] for d in found] == ["x", "y"] * 5
    times = [d.created_at for d in found]
    assert times == sorted(times)


def test_what_is_committed_later_never_comes_before_what_was_given(open_documents: Open) -> None:
    documents = open_documents()
    documents.commit([Create("tenants/a/receipts/first", {})])
    writers = [open_documents() for _ in range(4)]

    def write(n: int) -> None:
        for m in range(40):
            writers[n].commit([Create(f"tenants/a/receipts/{n}-{m}", {})])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    seen, after = [], None
    while any(thread.is_alive() for thread in threads) or len(seen) < 161:
        for document in documents.created("tenants/a/receipts", after=after, limit=7):
            seen.append(document.path)
            after = (document.created_at, document.path)
    for thread in threads:
        thread.join()

    everything = documents.created("tenants/a/receipts", limit=1000)
    assert seen == [d.path for d in everything]
    assert documents.late_s == 0


def test_a_database_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    earlier = SqliteDocuments(path)
    earlier.commit([Create("tenants/a/receipts/x", {})])
    earlier.close()
    import sqlite3

    connection = sqlite3.connect(path)
    connection.executescript("DROP INDEX by_collection_and_creation; PRAGMA user_version = 0;")
    connection.close()

    now = SqliteDocuments(path)
    assert [d.path for d in now.created("tenants/a/receipts")] == ["tenants/a/receipts/x"]
    now.close()
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    assert "by_collection_and_creation" in names


def test_documents_are_counted_without_being_read(documents: Documents) -> None:
    documents.commit(
        [Create(f"tenants/a/actions/{n}", {"of": "x" if n else "y"}) for n in range(5)]
    )
    documents.commit([Create("tenants/b/actions/0", {"of": "x"})])

    assert documents.count("tenants/a/actions", []) == 5
    assert documents.count("tenants/a/actions", [Where("of", "==", "x")]) == 4
    assert documents.count("tenants/c/actions", []) == 0
