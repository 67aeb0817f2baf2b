"""Whether the tests of the compatibility checker notice when it is changed (``make mutate``).

mutmut changes it in a copy, one place at a time, and runs its tests. A change that no test notices
has to be listed here, with the reason why nobody could notice it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST_PERCENT = 90
CONFIGURATION = """
[tool.mutmut]
paths_to_mutate = ["governor/compatibility.py"]
tests_dir = ["tests/test_compatibility.py"]
also_copy = ["governor", "ledger", "tests"]
[tool.pytest.ini_options]
pythonpath = ["."]
"""
EQUIVALENT = {
    'how = "shortened" if after <= before else "lengthened"': "equal times were passed over before",
    'how = "lowered" if after <= before else "raised"': "equal quotas were passed over before",
    'rule = "budget-lowered" if now <= was else "budget-raised"': "as for quotas",
    'rule = "price-raised" if now >= was else "price-lowered"': "as for quotas",
    'was, now = before.get(move, None), after.get(move, "")': "absent is false, however it is said",
    'was, now = before.get(move, ), after.get(move, "")': "as above",
    'was, now = before.get(move, ""), after.get(move, None)': "as above",
    'was, now = before.get(move, ""), after.get(move, )': "as above",
    'before: Policy | None = ""': "as above",
}
"""A changed line that nobody can notice, and why."""


def main(mutmut: str) -> int:
    """Run it, and say what no test noticed; the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for package in ("governor", "ledger"):
            shutil.copytree(ROOT / package, folder / package)
        (folder / "tests").mkdir()
        shutil.copy(ROOT / "tests/pure/test_compatibility.py", folder / "tests")
        (folder / "pyproject.toml").write_text(CONFIGURATION)

        def run(*words: str) -> str:
            done = subprocess.run(
                [os.path.abspath(mutmut), *words],
                check=False,
                cwd=folder,
                capture_output=True,
                text=True,
            )
            return done.stdout

        told = run("run", "--max-children", str(os.cpu_count() or 1))
        counts = re.findall(r"(\d+)/(\d+)\s+🎉 (\d+)", told)
        if not counts or counts[-1][0] != counts[-1][1]:
            sys.stdout.write(told[-2000:] + "\n")
            return 1
        total, noticed = int(counts[-1][1]), int(counts[-1][2])
        survivors = [
            line.split(":")[0].strip() for line in run("results").splitlines() if ":" in line
        ]
        changed = {name: _changed_line(run("show", name)) for name in survivors}
    unknown = {name: line for name, line in changed.items() if line not in EQUIVALENT}
    share = 100 * noticed / total
    sys.stdout.write(
        f"{noticed} of {total} changes noticed: {share:.1f} % (bar {LEAST_PERCENT} %)" + "\n"
    )
    for name, line in changed.items():
        sys.stdout.write(f"  {EQUIVALENT.get(line, 'NOT NOTICED')}: {line}  ({name})" + "\n")
    return 1 if unknown or share < LEAST_PERCENT else 0


def _changed_line(diff: str) -> str:
    lines = [line[1:].strip() for line in diff.splitlines() if re.match(r"\+[^+]", line)]
    return lines[0] if lines else diff


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
