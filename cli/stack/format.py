"""The format of what a release stores: an older release refuses a store of a newer one.

A release raises ``FORMAT`` when the one before it cannot read, or would misread, what it writes.
"""

from importlib.metadata import version

from governor.errors import ConflictError
from ports.documents import Create, Documents, Update

FORMAT = 2
"""1: release 0.1.0, which noted none. 2: contracts of version 2, chains, entitlements' states."""

_PATH = "system/format"


def claim(documents: Documents) -> None:
    """Note that this release writes here from now on.

    Raises:
        ConflictError: a newer release has written here, or is starting just now; nothing was
            changed.
        OutageError: the store is away.
    """
    found = documents.get(_PATH)
    ours = {"format": FORMAT, "version": version("ggen-governor")}
    if found is None:
        documents.commit([Create(_PATH, ours)])
    elif int(found.data["format"]) > FORMAT:
        raise ConflictError(
            "newer-store",
            f"release {found.data['version']} has written here in format {found.data['format']}; "
            f"this is {ours['version']}, which reads up to {FORMAT}. Nothing was changed. Install "
            "that release again, or restore a copy made before it: docs/upgrading.md",
        )
    elif found.data != ours:
        documents.commit([Update(_PATH, ours, found.revision)])
