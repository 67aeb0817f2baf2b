"""What an action costs on Firestore: documents written and read, as they are billed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ports import Ports
from tasks.actions import dispatch
from tasks.actions.admit import submit
from tasks.ledgers import seal
from tests.engine.conftest import event
from tests.support.actions import operations, signal_of
from tests.support.runs import subscribe

LIMIT_MS, COUNT = 3_600, 50


def _counts(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is billed: a document written, one read, and a query that finds none."""
    counts, documents = Counter[str](), ports.documents

    def counted(name: str, kind: str, billed: Callable[[Any, Any], int]) -> None:
        inner = getattr(documents, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = inner(*args, **kwargs)
            counts[kind] += billed(args, given)
            return given

        monkeypatch.setattr(documents, name, call)

    counted("commit", "writes", lambda args, _: len(args[0]))
    counted("get", "reads", lambda *_: 1)
    counted("_query", "reads", lambda _, found: max(1, len(found)))
    return counts


@pytest.mark.parametrize("backend", ["google"], indirect=True)
def test_what_a_million_actions_cost_is_what_the_page_says(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``docs/scaling.md`` reckons with these numbers."""
    subscribe(ports, event(plan_type="professional"))
    while seal.sweep(ports):
        pass
    counts = _counts(ports, monkeypatch)

    ids = []
    for number in range(COUNT):
        ids.append(submit(ports, signal_of(f"s-{number}")))
        newest = ports.dispatch.leave(LIMIT_MS, "nobody", None).round
        dispatch.serve(ports, LIMIT_MS, newest, lambda *_: None, lambda *_: None)
    carried = Counter(counts)
    while seal.sweep(ports):
        pass
    sealed = counts - carried

    assert carried == {"writes": 4 * COUNT, "reads": COUNT}
    assert sealed["writes"] == 2
    assert sealed["reads"] <= COUNT + 15
    assert operations(ports, ids[0]) == ["action_complete"]
