"""The disk below the state directory: how much is used, and when it is full."""

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from config.settings import Settings

_DAY_S = 86_400.0
_USED_FOR_S = 10.0
"""How long what was counted is shown: ``--watch`` looks twice a second, and files are many."""

_YOUNG_S = 3_600.0
"""A state directory that is younger says nothing of its pace."""


def disk(settings: Settings) -> dict[str, Any] | None:
    """Bytes the stack has stored, bytes that are free, and in how many days the disk is full.

    The pace is the mean since the first start: ``full_in_days`` is None during the first hour,
    and where nothing grows.
    """
    folder = settings.state_dir
    if not folder.is_dir():
        return None  # everything lies elsewhere
    free = psutil.disk_usage(str(folder)).free
    used = _used(folder, int(time.monotonic() / _USED_FOR_S))
    began = min((path.stat().st_mtime for path in settings.secrets_dir.glob("*")), default=None)
    age_s = time.time() - began if began else 0.0  # noqa: TID251
    pace = used / age_s * _DAY_S if age_s > _YOUNG_S else 0.0
    return {
        "used_bytes": used,
        "free_bytes": free,
        "bytes_a_day": round(pace),
        "full_in_days": round(free / pace, 1) if pace else None,
    }


@lru_cache(maxsize=1)
def _used(folder: Path, _turn: int) -> int:
    return sum(map(_bytes, folder.rglob("*")))


def _bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0  # it was removed meanwhile
    return found.st_blocks * 512
