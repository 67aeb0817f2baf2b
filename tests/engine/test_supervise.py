"""The log of all programs: it goes on whatever becomes of its disk, and is turned over in place."""

from pathlib import Path

import pytest
from supervisor import loggers

from cli.stack import supervise
from cli.stack.supervise import LogFile


def _line(words: str) -> loggers.LogRecord:
    return loggers.LogRecord(loggers.LevelsByName.INFO, f"{words}\n")


def _log(file: str) -> LogFile:
    log = LogFile(file)
    log.setFormat("%(message)s")
    return log


def test_a_full_disk_costs_a_line_and_nothing_else() -> None:
    log = _log("/dev/full")

    log.emit(_line("lost"))
    log.emit(_line("lost too"))
    with pytest.raises(OSError, match="No space"):
        log.close()


def test_a_log_without_room_for_its_copy_is_turned_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "MAX_LOG_BYTES", 30)
    log = _log(str(tmp_path / "ggen.log"))
    (tmp_path / "ggen.log.1").mkdir()  # what cannot be written, as on a full disk

    for n in range(9):
        log.emit(_line(f"line {n} of nine"))

    log.close()
    assert (tmp_path / "ggen.log").stat().st_size <= 30
