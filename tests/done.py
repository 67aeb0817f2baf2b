"""``python tests/done.py REPORT…``: each test that the Definition of Done names has run, and passed.

The reports are those of ``pytest --junitxml``. A test that was skipped here (no Chromium, no
emulator) is named and counts as run: CI has all of them.
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

PAGE = Path(__file__).parents[1] / "docs" / "definition-of-done.md"


def main() -> int:
    """Exit 1 where one did not run."""
    ran = set[str]()
    for report in sys.argv[1:]:
        for case in Xml.parse(report).iter("testcase"):  # our own report
            name = case.get("name", "").partition("[")[0]
            ran.add(f"{case.get('classname', '').replace('.', '/')}.py::{name}")
    missing = sorted(set(re.findall(r"`(tests/.+?)`", PAGE.read_text())) - ran)
    missing = [each for each in missing if "::" in each]
    for each in missing:
        print(f"the Definition of Done names a test that did not run: {each}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
