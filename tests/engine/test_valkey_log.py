"""The embedded Valkey's log of commands, where a full disk left zero bytes between two of them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from adapters.local.system import free_ports
from cli.stack.valkey import mend, valkey_binary
from tests.support.waiting import until

HOLE = bytes(37)
ODD = b"a value\n\0\0*1\r\n"


@contextmanager
def running(folder: Path) -> Iterator["redis.Redis"]:
    (port,) = free_ports(1)
    arguments = ["--port", f"{port}", "--appendonly", "yes", "--save", "", "--dir", f"{folder}"]
    server = subprocess.Popen([valkey_binary(), *arguments], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        until(lambda: server.poll() is not None or _answers(client))
        if server.poll() is not None:
            raise ChildProcessError(server.returncode)
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait()


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with three commands."""
    with running(tmp_path) as valkey:
        valkey.set("before", ODD)
        valkey.set("middle", "2")
        valkey.set("after", "3")
    (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    return file


def _with_holes(log: Path, *, tail: bytes = b"") -> None:
    text = log.read_bytes()
    at = text.index(b"*3\r\n$3\r\nset\r\n$6\r\nmiddle") if b"set" in text else None
    at = at or text.index(b"*3\r\n$3\r\nSET\r\n$6\r\nmiddle")
    log.write_bytes(text[:at] + HOLE + text[at:] + tail)


@pytest.mark.parametrize("tail", [b"", b"*3\r\n$3\r\nSET\r\n$3\r\nne"])
def test_a_hole_is_taken_out_and_nothing_is_lost(log: Path, tail: bytes) -> None:
    _with_holes(log, tail=tail)
    with pytest.raises(ChildProcessError), running(log.parents[1]):
        pass

    assert mend(log.parent) == [log]

    with running(log.parents[1]) as valkey:
        assert [valkey.get(name) for name in ("before", "middle", "after")] == [ODD, b"2", b"3"]


@pytest.mark.parametrize("cut", [1, 3, 9, 30])
def test_a_command_that_was_cut_off_goes_with_the_hole_and_the_others_stay(
    log: Path, cut: int
) -> None:
    """At its second short write Valkey cuts off too much."""
    text = log.read_bytes()
    at = text.rindex(b"*3\r\n")  # where the last command begins
    log.write_bytes(text[: at - cut] + bytes(cut + 37) + text[at:])
    assert mend(log.parent) == [log]

    with running(log.parents[1]) as valkey:
        assert [valkey.get(name) for name in ("before", "middle", "after")] == [ODD, None, b"3"]


def test_a_log_without_a_hole_is_left_alone_whatever_its_values_are(log: Path) -> None:
    before = log.read_bytes()

    assert mend(log.parent) == []

    assert log.read_bytes() == before


@pytest.mark.parametrize("text", [b"", b"\n\0\0*1", b"\0\0\0", b"no command\n\0*1\r\n"])
def test_what_is_no_log_is_left_to_valkey(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "appendonly.aof.1.incr.aof"
    file.write_bytes(text)

    assert mend(tmp_path) == []

    assert file.read_bytes() == text
