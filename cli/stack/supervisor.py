"""The running stack: start it, watch over its supervisor, wait until it is ready, stop it."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import httpx
import psutil

from adapters.local.waiting import until
from adapters.wiring import boot_note
from cli.stack import programs
from config.settings import Settings, environment
from governor.errors import ConflictError, OutageError

STOP_WITHIN_S = 10.0
READY_WITHIN_S = 45.0


def base_url(settings: Settings) -> str:
    """Where the ingress answers on this machine."""
    return settings.local_url


def address(settings: Settings) -> str:
    """Where the ingress of the stack of this state directory answers, whatever the settings say.

    Raises:
        OutageError: no stack runs here.
    """
    try:
        return (settings.state_dir / "run" / "url").read_text(encoding="utf-8")
    except OSError as error:
        raise OutageError(
            "not-running",
            f"no stack runs in {settings.state_dir}. Start it with: ggen up; or set GGEN_STATE_DIR "
            "to the directory of the one you mean",
        ) from error


def note_address(settings: Settings) -> None:
    """Have commands find the ingress of this state directory."""
    (settings.state_dir / "run" / "url").write_text(base_url(settings))


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Be the only start of this state directory.

    Raises:
        ConflictError: another start holds it; says which process, and how to stop it.
        OutageError: the directory cannot be used.
    """
    run = settings.state_dir / "run"
    try:
        settings.state_dir.parent.mkdir(parents=True, exist_ok=True)
        for folder in (settings.state_dir, run):
            folder.mkdir(exist_ok=True, mode=0o700)
        lock = os.open(run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutageError(
            "state-dir-unusable",
            f"cannot use the state directory {settings.state_dir}: {error.strerror}. "
            "Mend its mode, or set GGEN_STATE_DIR to another one",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise _running_already(settings, _read_pid(run / "up.pid")) from error
    try:
        if (supervisor := _supervisor(settings)) is not None:
            raise _running_already(settings, supervisor.pid)
        (run / "up.pid").write_text(str(os.getpid()))
        yield
    finally:
        (run / "up.pid").unlink(missing_ok=True)
        os.close(lock)


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) unwind the block, as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[None]:
    """A whole stack, ready, for as long as the block lasts; nothing is left of it afterwards."""
    with only_one(settings):
        programs.prepare(settings)
        supervisor = _spawn(settings)
        try:
            wait_ready(settings, give_up=lambda: supervisor.poll() is not None)
            yield
        finally:
            _stop(settings, supervisor.pid)


def run(
    settings: Settings,
    on_ready: Callable[[], None],
    follow: Callable[[], None],
    tell: Callable[[list[str]], None],
) -> None:
    """Start everything, call ``on_ready`` once, and stay until a signal; then stop everything.

    A supervisor that dies is replaced, after what it left behind was ended.

    Raises:
        OutageError: not ready in time; names the missing parts. Everything was stopped again.
    """
    stopping = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    supervisor = _spawn(settings)
    try:
        wait_ready(settings, give_up=lambda: stopping)
        if not stopping:
            on_ready()
        while not stopping:
            if supervisor.poll() is not None:
                end_leftovers(settings)
                supervisor = _spawn(settings)
            follow()
            time.sleep(0.2)
    finally:
        tell(["stopping…"])
        _stop(settings, supervisor.pid)
        tell(["stopped"])


def detach(settings: Settings) -> None:
    """Start ``ggen up`` in the background and wait until it is ready.

    Raises:
        OutageError: it ended or is not ready in time; names the missing parts.
    """
    with (settings.log_dir / "up.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.main", "up"],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_ready(settings, give_up=lambda: child.poll() is not None)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
            child.wait(STOP_WITHIN_S)
        raise
    if child.poll() is not None:
        raise OutageError("start-failed", "the stack ended at once. See: ggen logs")


def stop(settings: Settings) -> bool:
    """Stop a running stack; False when none was running. Ends whatever is left of it."""
    pid = _read_pid(settings.state_dir / "run" / "up.pid")
    was_running = _supervisor(settings) is not None
    if pid and _is_locked(settings):
        was_running = True
        with contextlib.suppress(psutil.NoSuchProcess):
            monitor = psutil.Process(pid)
            monitor.terminate()
            _await_gone([monitor], STOP_WITHIN_S + 2)
    if (supervisor := _supervisor(settings)) is not None:
        _stop(settings, supervisor.pid)
    return end_leftovers(settings) > 0 or was_running


def wait_ready(settings: Settings, give_up: Callable[[], bool] = lambda: False) -> None:
    """Wait until nothing is missing.

    Raises:
        OutageError: still not ready after ``READY_WITHIN_S``; names the missing parts.
    """
    missing: dict[str, str] = {"ingress": "does not answer"}
    with httpx.Client(base_url=base_url(settings), timeout=3, trust_env=False) as http:

        def is_over() -> bool:
            nonlocal missing
            try:
                answer = http.get("/readyz").json()
                missing = answer["missing"]
                return bool(answer["ready"]) or give_up()
            except (httpx.HTTPError, ValueError, KeyError):
                return give_up()

        try:
            until(is_over, READY_WITHIN_S, 0.05)
        except TimeoutError:
            what = "; ".join(f"{name}: {why}" for name, why in missing.items())
            raise OutageError("not-ready", f"not ready ({what}). See: ggen logs") from None


def processes(settings: Settings) -> dict[str, psutil.Process]:
    """Component -> its main process, of what runs now."""
    supervisor = _supervisor(settings)
    found: dict[str, psutil.Process] = {}
    for child in supervisor.children() if supervisor else []:
        with contextlib.suppress(psutil.Error):
            found[child.environ().get("SUPERVISOR_PROCESS_NAME", child.name())] = child
    return found


def end_leftovers(settings: Settings) -> int:
    """End processes of this state directory that no supervisor watches any more; how many."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            is_ours = variables.get("GGEN_STATE_DIR") == str(settings.state_dir)
            if is_ours and "SUPERVISOR_GROUP_NAME" in variables:
                process.kill()
                left.append(process)
    _await_gone(left, 5)
    return len(left)


def _spawn(settings: Settings) -> "subprocess.Popen[bytes]":
    programs.check_ports(settings)
    note_address(settings)
    with (settings.log_dir / "up.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.stack.supervise", "-c", "run/supervisord.conf"],
            cwd=settings.state_dir,
            env={
                "MALLOC_ARENA_MAX": "2",  # else each of an ingress's threads grows one of its own
                **environment(settings),
                "REMAP_SIGTERM": "SIGQUIT",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def _stop(settings: Settings, supervisor_pid: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # impatience must not leave processes behind
    try:
        supervisor = psutil.Process(supervisor_pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        supervisor.terminate()
    except psutil.NoSuchProcess:
        family = []
    for process in _await_gone(family, STOP_WITHIN_S - 1):
        with contextlib.suppress(psutil.Error):
            process.kill()
    end_leftovers(settings)
    (settings.state_dir / "run" / "url").unlink(missing_ok=True)
    boot_note(settings).forget()


def _await_gone(family: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _gone, alive = psutil.wait_procs(family, seconds)
    return alive


_SUPERVISORS = ("cli.stack.supervise", "supervisor.supervisord")
"""Ours, and release 0.1.0's: ``ggen down`` ends it where the package was upgraded first."""


def _supervisor(settings: Settings) -> psutil.Process | None:
    pid = _read_pid(settings.state_dir / "run" / "supervisord.pid")
    try:
        process = psutil.Process(pid) if pid else None
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return None
        # The pid may have been used again: believe it only of a supervisor of this directory.
        is_ours = process.environ().get("GGEN_STATE_DIR") == str(settings.state_dir)
        is_one = any(name in process.cmdline() for name in _SUPERVISORS)
        return process if is_ours and is_one else None
    except psutil.Error:
        return None


def _is_locked(settings: Settings) -> bool:
    """Whether a ``ggen up`` of this directory lives: the kernel frees its lock when it dies."""
    try:
        lock = os.open(settings.state_dir / "run" / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _running_already(settings: Settings, pid: int | None) -> ConflictError:
    return ConflictError(
        "already-running",
        f"a stack runs in {settings.state_dir} already (process {pid or 'unknown'}); it was left "
        "alone. Stop it with: ggen down",
    )
