"""The record of the demo handlers: what every check of "what really happened" goes by."""

import resource
from pathlib import Path

import pytest

from config import settings
from ggen_governor import ActionContext
from tasks.actions import demo

CONTEXT = ActionContext("acme", "crm", "a", "s", 0.0)


def test_a_note_that_is_cut_off_fails_its_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGEN_STATE_DIR", str(tmp_path))
    settings.load.cache_clear()
    demo._note(CONTEXT, "start")
    file = settings.load().demo_file
    before = file.read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="cut off"):
            demo._note(CONTEXT, "start")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        settings.load.cache_clear()

    assert file.read_text()[: len(before)] == before
    assert len(file.read_text()) == len(before) + 5
