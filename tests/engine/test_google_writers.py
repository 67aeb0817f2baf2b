"""Fifty writers on one tenant, and a ledger read while it grows: nobody fails, nothing is late."""

import threading

import pytest

from adapters.gcp import firestore as adapter
from adapters.gcp.firestore import FirestoreDocuments
from governor.errors import GovernorError
from ports.documents import Create, Update
from tests.support.live import new_project

WRITERS, EACH = 50, 10


def test_fifty_writers_of_one_tenant_have_no_failed_commit(firestore: str) -> None:
    documents = FirestoreDocuments(new_project(), emulator_host=firestore)
    failed: list[GovernorError] = []

    def write(n: int) -> None:
        try:
            for m in range(EACH):
                name = f"{n}-{m}"
                (revision,) = documents.commit(
                    [Create(f"tenants/a/actions/{name}", {"state": "pending"})]
                )
                documents.commit(
                    [
                        Update(f"tenants/a/actions/{name}", {"state": "complete"}, revision),
                        Create(f"tenants/a/receipts/{name}", {"timestamp": "t", "n": m}),
                    ]
                )
        except GovernorError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed
    assert len(documents.created("tenants/a/receipts", limit=1000)) == WRITERS * EACH
    documents.close()


@pytest.mark.parametrize("page", [1, 2, 7, 1000])
def test_a_ledger_is_listed_whole_and_in_order_whatever_a_page_holds(
    firestore: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(adapter, "_PAGE", page)
    documents = FirestoreDocuments(new_project(), emulator_host=firestore, timeout_s=10)
    for n in range(12):
        documents.commit([Create(f"tenants/a/receipts/{n}-{m}", {}) for m in range(3)])

    found, after = [], None
    while some := documents.created("tenants/a/receipts", after=after, limit=5):
        found += some
        after = (some[-1].created_at, some[-1].path)

    assert len(found) == len({d.path for d in found}) == 36
    assert [(d.created_at, d.path) for d in found] == sorted((d.created_at, d.path) for d in found)
    assert [int(d.path.rpartition("/")[2].split("-")[0]) for d in found] == sorted(
        n for n in range(12) for _ in range(3)
    )
    documents.close()
