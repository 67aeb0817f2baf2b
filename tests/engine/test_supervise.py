"""The logs: they go on whatever becomes of their disk, and are read as one."""

import time
from pathlib import Path

import pytest
from supervisor import loggers

from cli.stack.logs import Logs
from cli.stack.supervise import RotatingLog
from config.settings import Settings


def _line(words: str) -> loggers.LogRecord:
    return loggers.LogRecord(loggers.LevelsByName.INFO, f"{words}\n")


def _log(file: Path, max_bytes: int = 1000) -> RotatingLog:
    log = RotatingLog(str(file), maxBytes=max_bytes, backupCount=1)
    log.setFormat("%(message)s")
    return log


def test_a_full_disk_costs_a_line_and_nothing_else() -> None:
    log = _log(Path("/dev/full"))

    log.emit(_line("lost"))
    log.emit(_line("lost too"))
    with pytest.raises(OSError, match="No space"):
        log.close()


def test_a_log_that_cannot_be_rotated_goes_on(tmp_path: Path) -> None:
    log = _log(tmp_path / "beat.log", 30)
    (tmp_path / "beat.log.1").mkdir()  # nothing can be renamed to it

    for n in range(9):
        log.emit(_line(f"line {n} of nine"))

    log.close()
    assert "line 8 of nine" in (tmp_path / "beat.log").read_text()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(state_dir=tmp_path)
    made.log_dir.mkdir()
    return made


def test_the_logs_of_all_programs_are_read_in_the_order_of_their_times(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    (settings.log_dir / "beat.log").write_text(
        "2026-01-01T00:00:00.100Z ERROR beat one\n  what belongs to it\n"
        "2026-01-01T00:00:00.400Z INFO beat four\n"
    )
    (settings.log_dir / "ingress.log").write_text("2026-01-01T00:00:00.300Z INFO ingress three\n")
    (settings.log_dir / "valkey.log").write_text("7:M 01 Jan 2026 00:00:00.200 # two\n")
    (settings.log_dir / "supervisord.log").write_text("2026-01-01 00:00:00,500 INFO five\nhalf a")

    words = [line.split()[-1] for line in Logs(settings).last(10)]

    assert words == ["one", "it", "two", "three", "four", "five"]
    assert len(Logs(settings).last(2)) == 2
    assert Logs(settings).last(0) == []
    assert [line.split()[-1] for line in Logs(settings, "beat").last(9)] == ["one", "it", "four"]


def test_what_a_log_gains_is_read_once_also_across_its_rotation(settings: Settings) -> None:
    file = settings.log_dir / "beat.log"
    log = _log(file, 60)
    log.emit(_line("2026-01-01T00:00:00.100Z before"))
    logs = Logs(settings)
    assert len(logs.last(5)) == 1
    assert logs.new() == []

    for n in range(200, 206):
        log.emit(_line(f"2026-01-01T00:00:00.{n}Z {n}"))
        if n % 2:
            gained = [line.split()[-1] for line in logs.new()]
            assert gained == [str(n - 1), str(n)]

    assert file.with_name("beat.log.1").exists()
    log.close()
