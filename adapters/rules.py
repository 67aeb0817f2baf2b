"""What every store accepts: paths, fields, sizes, names. An adapter checks before it asks."""

import json
import re
from collections.abc import Sequence

from governor.errors import InputError
from ports.documents import MAX_DOCUMENT_BYTES, MAX_WRITES, Delete, Json, Where, Write

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,255}")
_NAME_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,200}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")


def checked(writes: Sequence[Write]) -> list[str]:
    """The JSON text of each write of a commit; empty for a Delete.

    Raises:
        InputError: too many writes, an invalid path, or data that is no document.
    """
    if len(writes) > MAX_WRITES:
        raise InputError("too-many-writes", f"a commit takes at most {MAX_WRITES} writes")
    texts = []
    for write in writes:
        check_path(write.path)
        if write.path.count("/") % 2 == 0:
            raise InputError("bad-path", "a document's path has an even number of segments")
        texts.append("" if isinstance(write, Delete) else _json(write.data))
    return texts


def check_path(path: str) -> None:
    """Raise InputError unless it names a document or a collection."""
    if not all(map(_SEGMENT.fullmatch, path.split("/"))):
        raise InputError("bad-path", f"{path[:200]!r} is no document path")


def is_field(name: str) -> bool:
    """Whether a field of this name can be asked for."""
    return _FIELD.fullmatch(name) is not None


def check_field(name: str) -> str:
    """The name. Raises InputError unless it is one."""
    if not is_field(name):
        raise InputError("bad-field", f"{name[:64]!r} is no field name")
    return name


def order_of(where: Sequence[Where], order_by: str | None) -> str | None:
    """The field a scan is ordered by: that of its range, where it has one.

    Raises:
        InputError: a range on one field and an order by another: no store here pages through that.
    """
    fields = {check_field(each.field) for each in where if each.op in ("<=", ">=")}
    if order_by:
        fields.add(check_field(order_by))
    if len(fields) > 1:
        raise InputError("two-orders", f"a range and an order on {' and '.join(sorted(fields))}")
    return next(iter(fields), None)


def encoded(data: Json) -> str:
    """The JSON text of a document, as it is written."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _json(data: Json) -> str:
    try:
        text = encoded(data)
        size_bytes = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("not-json", f"a document must be JSON: {error}") from error
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise InputError("too-large", f"{size_bytes} bytes; at most {MAX_DOCUMENT_BYTES}")
    return text


def check_name(name: str) -> str:
    """An object's name. Raises InputError unless it is ``segment/segment…``."""
    if not all(map(_NAME_SEGMENT.fullmatch, name.split("/"))):
        raise InputError("bad-object-name", f"{name[:200]!r} is no object name")
    return name
