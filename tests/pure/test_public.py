"""What users' code imports, and what becomes of namesakes of our modules."""

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import ggen_governor
from ggen_governor import start

ROOT = Path(__file__).parents[2]
GGEN = [sys.executable, "-P", "-m", "ggen_governor.start"]


def test_the_public_package_is_what_the_docs_import() -> None:
    text = "\n".join(
        page.read_text()
        for folder in ("docs", "examples")
        for page in (ROOT / folder).rglob("*")
        if page.suffix in (".md", ".py")
    )
    lines = re.findall(r"^ *from ggen_governor import (.*)$", text, re.MULTILINE)
    named = {name.strip() for line in lines for name in line.split(",")}

    assert named == set(ggen_governor.__all__)
    assert all(getattr(ggen_governor, name).__doc__ for name in named)
    assert (files("ggen_governor") / "py.typed").is_file()
    ours = "|".join(start.NAMES)
    assert not re.findall(rf"^ *(?:from|import) (?:{ours})\b", text, re.MULTILINE)


def _run(
    folder: Path, *command: str, path: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "GGEN_STATE_DIR": str(folder / "state")}
    if path:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _project(folder: Path) -> Path:
    """A Celery project whose modules are called like ours."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "__init__.py").write_text("raise SystemExit('theirs')\n")
    (folder / "tasks.py").write_text("raise SystemExit('theirs')\n")
    return folder


def test_in_the_folder_of_a_project_with_our_names_ours_are_loaded(tmp_path: Path) -> None:
    done = _run(_project(tmp_path), *GGEN, "policy", "--help")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["tasks.py", "config"])
def test_a_namesake_that_would_be_loaded_is_refused_with_both_files(
    tmp_path: Path, name: str
) -> None:
    project = _project(tmp_path / "orders")
    for other in {"tasks.py", "config"} - {name}:
        (project / other).rename(tmp_path / other)

    done = _run(tmp_path, *GGEN, "--version", path=project)

    assert done.returncode == 2
    assert str(project / name) in done.stderr
    assert str(ROOT / name.removesuffix(".py")) in done.stderr
    assert "PYTHONPATH" in done.stderr
    assert "Nothing was started" in done.stderr


def test_a_project_that_is_installed_with_our_names_is_refused_by_name(tmp_path: Path) -> None:
    info = tmp_path / "orders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orders\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("tasks\n")

    done = _run(tmp_path, *GGEN, "prepare", path=tmp_path)

    assert done.returncode == 2
    assert "'tasks'" in done.stderr
    assert "orders" in done.stderr
    assert not (tmp_path / "state").exists()


def test_handlers_in_a_package_with_submodules_of_our_names_are_found(tmp_path: Path) -> None:
    package = tmp_path / "crm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text("NAME = 'crm.call'\n")
    (package / "cli.py").write_text("")
    (package / "tasks.py").write_text(
        "from pydantic import BaseModel\n"
        "from ggen_governor import action\n"
        "from . import cli, config\n"
        "class Call(BaseModel): ...\n"
        "@action(config.NAME, payload=Call, undo=None)\n"
        "def call(context, payload): ...\n"
    )
    info = tmp_path / "crm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ggen.actions]\ncrm = crm.tasks\n")
    code = "from ggen_governor.handlers import registered; print(sorted(registered()))"

    done = _run(tmp_path, sys.executable, "-P", "-c", code, path=tmp_path)

    assert "crm.call" in done.stdout, done.stderr
    assert "bench.noop" not in done.stdout
