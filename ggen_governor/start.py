"""``ggen``: starts only where Python would load ggen governor's own modules, and no namesakes.

``tasks`` and ``config`` are common names. A module of another project that was loaded in the place
of ours would fail in some odd way, or do something else.
"""

import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

NAMES = (
    "adapters",
    "beat_schedule",
    "bench",
    "cli",
    "config",
    "governor",
    "ingress",
    "ledger",
    "ports",
    "tasks",
)
"""Our modules beside this package."""

OWN = "ggen-governor"
_STARTS_PROGRAMS = ("up", "demo", "prepare", "run", "bench")


def main() -> None:
    """Run ``ggen``, or name the module that conflicts with ours: exit 2, nothing was started."""
    fault = shadowed() or (installed_twice() if sys.argv[1:2] and starts_programs() else "")
    if fault:
        print(f"ggen: {fault}", file=sys.stderr)
        sys.exit(2)
    from cli.main import main as run

    run()


def starts_programs() -> bool:
    """Whether the command starts programs that import by these names."""
    return sys.argv[1] in _STARTS_PROGRAMS


def shadowed() -> str:
    """Which of our modules another project's would be loaded for; empty where there is none."""
    home = Path(__file__).parents[1]
    for name in NAMES:
        spec = find_spec(name)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None or not origin.is_relative_to(home):
            ours = next(iter(sorted(home.glob(f"{name}*"))), home / name)
            return (
                f"Python would load {origin or 'nothing'} for {name!r}, in the place of {ours}: "
                "another project has a module of that name. Nothing was started. Take its folder "
                "out of PYTHONPATH, or install ggen governor into a virtual environment of its own"
            )
    return ""


def installed_twice() -> str:
    """Which of our modules another project has installed too; empty where none has."""
    found = packages_distributions()
    for name in NAMES:
        others = [each for each in found.get(name, ()) if each != OWN]
        if others:
            return (
                f"{name!r} was installed by {OWN} and by {others[0]}: one of them would load the "
                f"other's module. Nothing was started. Install ggen governor into a virtual "
                "environment of its own"
            )
    return ""


if __name__ == "__main__":
    main()
