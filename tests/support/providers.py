"""The schema of Google's Terraform provider, read as text from PyPI's ``cdktf-cdktf-provider-google``.

The package is generated from the provider's own schema, and 49 MB large. Nothing of it is imported:
each resource is a module with a class of keyword-only arguments; one without a default is required,
and one whose annotation names another class of the module is a nested block.

``python -m tests.support.providers WHEEL`` writes the part that our files use, which the fast test reads.
"""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "fixtures" / "terraform" / "google.json"
PACKAGE = "cdktf-cdktf-provider-google"
META = frozenset({"connection", "depends_on", "lifecycle", "provider", "provisioners"})
REPEATED = frozenset({"count", "for_each"})

Schema = dict[str, Any]
"""Argument -> whether it is required, and ``block`` with the arguments inside, where it is one."""


def distilled(wheel: Path, names: set[str]) -> dict[str, Schema]:
    """The schemas of resources (``google_x``) and data sources (``data.google_x``)."""
    with zipfile.ZipFile(wheel) as package:
        return {name: _schema(package, name) for name in sorted(names)}


def _schema(package: zipfile.ZipFile, name: str) -> Schema:
    module = re.sub(r"^(data\.)?google_", lambda m: "data_google_" if m[1] else "", name)
    text = package.read(f"cdktf_cdktf_provider_google/{module}/__init__.py").decode()
    classes = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.ClassDef)}
    (config,) = (n for n, c in classes.items() if any("MetaArg" in ast.unparse(b) for b in c.bases))
    return _arguments(classes, config, ())


def _arguments(classes: dict[str, ast.ClassDef], name: str, within: tuple[str, ...]) -> Schema:
    made = [
        n for n in classes[name].body if isinstance(n, ast.FunctionDef) and n.name == "__init__"
    ]
    found: Schema = {}
    for function in made:
        for argument, default in zip(
            function.args.kwonlyargs, function.args.kw_defaults, strict=True
        ):
            if argument.arg in META | REPEATED | {"id"}:
                continue
            entry: dict[str, Any] = {"required": default is None}
            words = (
                re.findall(r"\w+", ast.unparse(argument.annotation)) if argument.annotation else []
            )
            nested = next((word for word in words if word in classes), None)
            if nested and nested not in within:
                entry["block"] = _arguments(classes, nested, (*within, nested))
            found[argument.arg] = entry
    return found


if __name__ == "__main__":
    from tests.pure.test_terraform import used

    FILE.write_text(
        json.dumps(distilled(Path(sys.argv[1]), used()), indent=1, sort_keys=True) + "\n"
    )
