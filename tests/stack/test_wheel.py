"""The wheel is a function of the commit: two builds of one tree are the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[2]


def _built(folder: Path) -> str:
    tree = folder / "tree"
    wanted = subprocess.run(
        ["git", "ls-files"], cwd=TREE, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, wanted):
        if not name.startswith(("tests/", "docs/")) and (TREE / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TREE / name, tree / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            ".",
        ],
        cwd=tree,
        check=True,
        capture_output=True,
        umask=0o022,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1795651165"},
    )
    (wheel,) = folder.glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_two_builds_of_one_tree_are_the_same_bytes(tmp_path: Path) -> None:
    assert _built(tmp_path / "a") == _built(tmp_path / "b")
