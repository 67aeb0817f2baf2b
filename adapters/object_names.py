"""What every store of objects takes for a name."""

import re

from governor.errors import InputError

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,200}")


def check_name(name: str) -> str:
    """The name. Raises InputError unless it is ``segment/segment…``."""
    if not all(map(_SEGMENT.fullmatch, name.split("/"))):
        raise InputError("bad-object-name", f"{name[:200]!r} is no object name")
    return name
