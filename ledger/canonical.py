"""Canonical JSON (RFC 8785), and a strict reader for what was signed."""

import json
from typing import Any

import rfc8785

from governor.errors import InputError

plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
"""The canonical text of a value without fractions and with ASCII keys, five times as fast."""

plain_text = json.encoder.encode_basestring
"""The canonical form of a text."""

_SCALARS = frozenset({str, int, bool, type(None)})


def dumps(value: Any) -> bytes:
    """The one UTF-8 encoding RFC 8785 gives ``value``.

    Raises:
        InputError: it has no canonical form (an integer beyond 2**53-1, NaN, a lone surrogate).
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise InputError("not-canonical", f"no canonical JSON form: {error}") from error


def is_canonical(value: Any, text: bytes) -> bool:
    """Whether ``text`` is the canonical form of ``value``, which was parsed from it."""
    try:
        if not _is_plain(value):
            return dumps(value) == text
        return plain(value).encode() == text
    except (InputError, UnicodeError, RecursionError):
        return False


def loads(text: str | bytes) -> Any:
    """Parse JSON, refusing what two readers could understand differently.

    Raises:
        InputError: not JSON in UTF-8, a repeated key, NaN, nested too deeply, or an integer
            that a reader with IEEE doubles would silently change.
    """
    try:
        return _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError("not-json", f"not valid JSON: {error}") from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        is_flat = _SCALARS.issuperset(map(type, value.values()))
        return "".join(value).isascii() and (is_flat or all(map(_is_plain, value.values())))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return type(value) in _SCALARS


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _integer(text: str) -> int | float:
    value = int(text)
    if abs(value) <= 2**53 - 1:
        return value
    as_double = float(value)
    if int(as_double) != value and rfc8785.dumps(as_double) != text.encode():
        raise ValueError("an integer beyond 2**53-1 that is no IEEE double; send it as a string")
    return as_double


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer
)
