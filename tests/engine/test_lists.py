"""Ids by their beginning, pages, and columns that are cut on a terminal alone."""

import pytest

from cli import lists
from governor.errors import InputError
from ports import Ports
from ports.documents import Create


@pytest.fixture
def three(ports: Ports) -> Ports:
    ids = ("run-aa1", "run-aa2", "run-b")
    ports.documents.commit([Create(f"runs/{each}", {"started_at": each}) for each in ids])
    return ports


@pytest.mark.parametrize(
    ("given", "whole"),
    [("run-b", "run-b"), ("run-aa2", "run-aa2"), ("run-aa", None), ("none", "none")],
)
def test_a_beginning_stands_for_the_one_id_it_fits(
    three: Ports, given: str, whole: str | None
) -> None:
    if whole:
        assert lists.id_of(three.documents, "runs", given, "run") == whole
        return
    with pytest.raises(InputError, match="run run-aa may be run-aa1 and run-aa2"):
        lists.id_of(three.documents, "runs", given, "run")


def test_a_page_begins_after_the_last_id_of_the_one_before(three: Ports) -> None:
    place = lists.place_of(three.documents, "runs", "run-b", "run", "started_at")

    assert place == ("run-b", "runs/run-b")
    assert lists.place_of(three.documents, "runs", None, "run", "started_at") is None
    with pytest.raises(InputError, match="there is no run none"):
        lists.place_of(three.documents, "runs", "none", "run", "started_at")
    assert lists.next_page(["a", "b"], 2) == "more: --after b"
    assert lists.next_page(["a"], 2) == ""


def test_what_a_program_reads_is_not_cut() -> None:
    long = "x" * 300

    text = lists.table(("name", "why"), [(long, "[red]"), ("short", None)], more="more: --after y")

    assert text.splitlines()[0].split() == ["name", "why"]
    assert long in text
    assert "[red]" in text
    assert text.splitlines()[2].split() == ["short", "-"]
    assert text.endswith("more: --after y")


def test_a_terminal_of_80_columns_has_no_longer_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    text = lists.table(
        ("action", "account", "state"), [("action-" + "0" * 40, "a" * 63, "complete")]
    )

    assert max(map(len, text.splitlines())) <= 80
    assert "…" in text
