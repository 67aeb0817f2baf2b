"""``ggen`` in a process of its own, forked from one that has imported it already.

A command costs a twentieth of a second that way, not a second of imports; environment, arguments,
output and exit code are a process's own. The supervised stack itself is started as users start it.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from cli.shapes.commands import COMMANDS

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "tests.support.stores",
        "tests.support.actions",
        "tests.support.runs",
        "tests.support.commands",
        "cli.main",
        "ingress.client",
        "cli.audit.export",
        "cli.audit.verify_archive",
        "cli.audit.verify_ledger",
        "cli.commands.run_reports",
        "cli.commands.stack",
        "adapters.local.sqlite",
        "adapters.valkey.memory",
        "tasks.actions.operators",
    ]
)


def ggen(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout: float = 90,
) -> "subprocess.CompletedProcess[str]":
    """Run one command; what it printed, and its exit code."""
    with tempfile.TemporaryDirectory(prefix="ggen-test-") as folder:
        files = [os.path.join(folder, name) for name in ("out", "err")]
        child = FORKS.Process(target=_run, args=(list(arguments), dict(environment), *files))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        out, err = (Path(file).read_text(encoding="utf-8") for file in files)
        code = child.exitcode
        child.close()
    if code == 0 and "--json" in arguments and "--watch" not in arguments:
        check_shape(arguments, out)
    return subprocess.CompletedProcess(list(arguments), code, out, err)


def check_shape(arguments: Sequence[str], out: str) -> None:
    """What a command printed with ``--json`` has the shape that ``ggen schema`` says."""
    words = " ".join(arguments[:2]) if " ".join(arguments[:2]) in COMMANDS else arguments[0]
    if words in COMMANDS:
        TypeAdapter(COMMANDS[words], config=None).validate_json(out)


def _run(arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    from config import settings

    os.environ.clear()
    os.environ.update(environment)
    settings.load.cache_clear()
    for number, file in ((0, os.devnull), (1, out), (2, err)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(file, flags, 0o600), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["ggen", *arguments]
    from ggen_governor.start import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
