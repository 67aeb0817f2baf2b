"""A store that a newer release has written is refused; an older one's is taken over."""

import pytest

from cli.stack import format as release
from governor.errors import ConflictError
from ports import Ports
from ports.documents import Create


def _noted(ports: Ports) -> object:
    found = ports.documents.get("system/format")
    return found.data["format"] if found else None


def test_the_first_start_notes_its_format_and_the_next_finds_it(ports: Ports) -> None:
    release.claim(ports.documents)
    release.claim(ports.documents)

    assert _noted(ports) == release.FORMAT


def test_an_older_format_is_taken_over(ports: Ports) -> None:
    ports.documents.commit([Create("system/format", {"format": 1, "version": "0.1.0"})])

    release.claim(ports.documents)

    assert _noted(ports) == release.FORMAT


def test_a_newer_format_is_refused_and_stays(ports: Ports) -> None:
    newer = {"format": release.FORMAT + 1, "version": "9.0.0"}
    ports.documents.commit([Create("system/format", newer)])

    with pytest.raises(ConflictError, match=r"release 9\.0\.0 has written here"):
        release.claim(ports.documents)
    assert _noted(ports) == release.FORMAT + 1
