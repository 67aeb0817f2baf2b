"""``python tests/done.py REPORT…``: each test that the Definition of Done names has run, and passed.

With ``--failed`` it names those that did not pass, and the first line of why.

The reports are those of ``pytest --junitxml``. A test that was skipped here (no Chromium, no
emulator) is named and counts as run: CI has all of them.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

PAGE = Path(__file__).parents[1] / "docs" / "definition-of-done.md"


def main() -> int:
    """Exit 1 where one did not run; always with ``--failed``."""
    if sys.argv[1] == "--failed":
        for report in sys.argv[2:]:
            _name_failed(Path(report))
        return 1
    ran = {_name(case).partition("[")[0] for each in sys.argv[1:] for case in _cases(Path(each))}
    missing = sorted(set(re.findall(r"`(tests/.+?)`", PAGE.read_text())) - ran)
    missing = [each for each in missing if "::" in each]
    for each in missing:
        print(f"the Definition of Done names a test that did not run: {each}", file=sys.stderr)
    return 1 if missing else 0


def _name_failed(report: Path) -> None:
    if not report.exists():
        print(f"{report}: these tests did not run, or did not end", file=sys.stderr)
        return
    for case in _cases(report):
        for kind in ("failure", "error"):
            if (why := case.find(kind)) is not None:
                first = (why.get("message") or "").partition("\n")[0][:300]
                print(f"{kind}: {_name(case)}: {first}", file=sys.stderr)


def _cases(report: Path) -> Iterator[Xml.Element]:
    return Xml.parse(report).iter("testcase")  # our own report


def _name(case: Xml.Element) -> str:
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '')}"


if __name__ == "__main__":
    sys.exit(main())
