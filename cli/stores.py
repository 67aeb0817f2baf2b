"""The stores of a command that needs no running stack, but one that was started once."""

from typing import TYPE_CHECKING

from adapters.wiring import open_ports
from config.settings import load
from governor.errors import OutageError
from ports import Ports

if TYPE_CHECKING:
    from ingress.client import Client


def opened() -> Ports:
    """The ports the settings name.

    Raises:
        OutageError: nothing was ever started in the state directory; says what to do.
    """
    settings = load()
    if not settings.documents_url and not (settings.state_dir / "documents.db").exists():
        raise OutageError(
            "not-running",
            f"nothing was started in {settings.state_dir}. Start it with: ggen up; or set "
            "GGEN_STATE_DIR to the directory of the stack you mean",
        )
    return open_ports(settings)


def connected() -> "Client":
    """A client of the stack that runs in this state directory.

    Raises:
        OutageError: none runs there.
    """
    from cli.stack.supervisor import address
    from ingress.client import Client

    settings = load()
    return Client(settings, address(settings))
