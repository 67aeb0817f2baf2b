"""The rules of the house that no linter knows."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUND = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
PACKAGES = [name.rstrip("*") for name in FOUND["find"]["include"]]
MODULES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is_for(module: Path) -> None:
    text = module.read_text()

    # What an auditor runs is one file, whatever is in it.
    assert len(text.splitlines()) <= (850 if "auditor" in module.parts else 400)
    assert ast.get_docstring(ast.parse(text))


def test_beat_fires_only_tasks_that_exist_into_queues_that_exist() -> None:
    code = (
        "import json, beat_schedule\n"
        "from tasks.celery import app\n"
        "app.loader.import_default_modules()\n"
        "queues = {q.name for q in app.conf.task_queues}\n"
        "for e in beat_schedule.entries(health_interval_s=10, probe_interval_s=2, tally_interval_s=60).values():\n"
        "    assert e['task'] in app.tasks, e\n"
        "    assert e['options']['queue'] in queues, e\n"
    )
    environment = {**os.environ, "GGEN_BROKER_URL": "redis://127.0.0.1:1/0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_the_schedule_is_data_only() -> None:
    tree = ast.parse((ROOT / "beat_schedule.py").read_text())

    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]


def test_nothing_happens_at_import() -> None:
    code = (
        "import sys, socket\n"
        "def no(*a, **k): raise SystemExit('a socket at import')\n"
        "socket.socket.connect = no\n"
        "import tasks.celery, tasks.runs.reap, tasks.receipts.refusals, ingress.app, cli.main\n"
        "assert 'grpc' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_purest_packages_do_not_even_know_of_the_environment() -> None:
    for module in MODULES:
        if module.parent.name in ("governor", "ledger"):
            names = {
                n.id for n in ast.walk(ast.parse(module.read_text())) if isinstance(n, ast.Name)
            }
            assert not names & {"open", "print", "input"}, module


def test_the_wheel_carries_every_module_of_the_tree(tmp_path: Path) -> None:
    import zipfile

    source = tmp_path / "source"  # a build leaves folders behind where it stands
    for name in ("pyproject.toml", "README.md", "beat_schedule.py"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(source),
        ],
        check=True,
        timeout=120,
        cwd=tmp_path,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())

    data = {
        "beat_schedule.py",
        "adapters/valkey/admission.lua",
        "adapters/valkey/dispatch.lua",
        "config/policies/demo-sku.starter.json",
    }
    assert data | {str(module.relative_to(ROOT)) for module in MODULES} <= names
    assert not [n for n in names if n.startswith("tests/")]


def test_the_lock_pins_hashes_and_names_no_index() -> None:
    for name in (
        "requirements.lock",
        "requirements-gcp.lock",
        "requirements-dev.lock",
        "requirements-mutation.lock",
    ):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index-url" not in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, cli.main\n"
        "print([m for m in ('celery', 'fastapi', 'redis', 'httpx') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)

    assert loaded.stdout.strip() == b"[]"
