"""``python tests/audit.py PIP_AUDIT LOCK…``: known vulnerabilities of every locked package.

Exit 0: every package was looked up, and none has one. 1: some have. 5: some could not be looked up;
that is no pass, whatever pip-audit's own exit code says (it is 0 for a package it has skipped).
"""

import json
import subprocess
import sys
from collections.abc import Sequence

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 5
_SHOWN = 5


def verdict(output: str) -> tuple[int, list[str]]:
    """The exit code, and a line for each finding, of what ``pip-audit --format json`` wrote."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return NOT_AUDITED, ["no package could be audited: the service does not answer"]
    found = [
        f"{package['name']} {package.get('version')}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability.get('fix_versions', ())) or 'no release'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "vulns" not in package]
    lines = list(found)
    if skipped:
        more = f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        lines.append(f"could not be audited: {', '.join(skipped[:_SHOWN])}{more}")
    if not packages:
        lines.append("could not be audited: the lock names no package")
    if found:
        return VULNERABLE, lines
    return (NOT_AUDITED if skipped or not packages else CLEAN), lines


def main(command: str, locks: Sequence[str]) -> int:
    """Audit each lock; the worst exit code, vulnerable before not audited."""
    codes = []
    for lock in locks:
        told = subprocess.run(
            [command, "--disable-pip", "--require-hashes", "-r", lock, "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        code, lines = verdict(told.stdout)
        codes.append(code)
        print(f"{lock}: {'clean' if code == CLEAN else ''}", *lines, sep="\n    ")
    return VULNERABLE if VULNERABLE in codes else max(codes, default=NOT_AUDITED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
