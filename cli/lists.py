"""Lists for people: columns with headers, ids by their unique beginning, and the next page."""

import shutil
import sys
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Annotated

import typer

from governor.errors import InputError
from ports.documents import Document, Documents, Query

if TYPE_CHECKING:
    from rich.console import Console

After = Annotated[
    str | None, typer.Option(help="The last id of the page before, or its beginning.")
]
_WIDE = 10_000


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, more: str = "") -> str:
    """Aligned columns; cut to the terminal's width, and never where a program reads them.

    Args:
        headers: the columns' names.
        rows: their values; None is shown as ``-``.
        more: how to get the next page, where there may be one.
    """
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        shown.add_column(header, no_wrap=True, overflow="ellipsis")
    for row in rows:
        shown.add_row(*("-" if value is None else str(value) for value in row))
    console = _console()
    console.print(shown, markup=False)
    assert isinstance(console.file, StringIO)  # noqa: S101
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join([*lines, *([more] if more else [])])


def _console() -> "Console":
    from rich.console import Console

    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else _WIDE
    return Console(file=StringIO(), width=width, color_system=None, emoji=False, markup=False)


def _fitting(documents: Documents, collection: str, given: str, noun: str) -> Document | None:
    """The document of an id, or of its beginning, where that is one's alone."""
    exact = documents.get(f"{collection}/{given}")
    if exact is not None:
        return exact
    start = f"{collection}/{given}"
    page = documents.scan(Query(collection, after=("", start), limit=2))
    fitting = [document for document in page if document.path.startswith(start)]
    if len(fitting) > 1:
        names = " and ".join(document.path.rpartition("/")[2] for document in fitting)
        raise InputError("ambiguous", f"{noun} {given} may be {names}: give more of it")
    return fitting[0] if fitting else None


def id_of(documents: Documents, collection: str, given: str, noun: str) -> str:
    """The whole id that begins so; what was given, where none does: the command says what it is.

    Raises:
        InputError: several begin so; it names the first two.
    """
    fitting = _fitting(documents, collection, given, noun)
    return fitting.path.rpartition("/")[2] if fitting else given


def place_of(
    documents: Documents, collection: str, given: str | None, noun: str, order_by: str
) -> tuple[str, str] | None:
    """Where the page after this id begins, in the order of a field; None: at the beginning.

    Raises:
        InputError: there is no such id, or there are several; it names the first two.
    """
    if given is None:
        return None
    document = _fitting(documents, collection, given, noun)
    if document is None:
        raise InputError("not-found", f"there is no {noun} {given}")
    return str(document.data[order_by]), document.path


def next_page(ids: Sequence[str], limit: int) -> str:
    """How to see more, where a page is full."""
    return f"more: --after {ids[-1]}" if len(ids) == limit else ""
