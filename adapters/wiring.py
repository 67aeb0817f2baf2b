"""Opens the ports that settings name: the only module that names a backend.

An SDK is imported in the branch that chose it, so a machine without it still runs the others.
"""

import os
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters.key_files import KeyFiles
from adapters.log_alerts import LogAlerts
from adapters.secret_files import SecretFiles
from adapters.system import SystemClock, SystemProcesses
from config.settings import Settings, load
from governor.errors import InputError
from ports import Ports
from ports.documents import Documents
from ports.memory import Memory, Notices
from ports.objects import Objects
from ports.signals import Signals

_BROKER, _MEMORY, _SIGNALS = 0, 1, 2


def ports() -> Ports:
    """This process's ports; opened on first use, anew in a forked child."""
    return _ports_of(os.getpid())


@cache
def _ports_of(_pid: int) -> Ports:
    return open_ports(load())


def open_ports(settings: Settings) -> Ports:
    """Open every port. Connections are made when first used, never here.

    Raises:
        InputError: a URL names a backend that does not exist.
    """
    return Ports(
        documents=_documents(settings),
        objects=_objects(settings),
        signals=_signals(settings),
        memory=_memory(settings),
        secrets=SecretFiles(settings.secrets_dir),
        keys=KeyFiles(settings.keys_dir, settings.ledger_origin),
        alerts=LogAlerts(),
        clock=SystemClock(),
        processes=SystemProcesses(),
    )


def open_notices(settings: Settings) -> Notices:
    """The listening half of Memory, for an event loop."""
    from adapters.valkey import ValkeyNotices

    return ValkeyNotices(memory_url(settings))


def broker_url(settings: Settings) -> str:
    """Celery's broker."""
    return settings.broker_url or embedded_valkey_url(settings, _BROKER)


def memory_url(settings: Settings) -> str:
    """Memory's server and database."""
    return settings.memory_url or embedded_valkey_url(settings, _MEMORY)


def signals_url(settings: Settings) -> str:
    """The server and database of the embedded topics."""
    return settings.signals_url or embedded_valkey_url(settings, _SIGNALS)


def embedded_valkey_url(settings: Settings, database: int) -> str:
    """A database of the Valkey that ``ggen up`` starts; its password comes from its file."""
    password = SecretFiles(settings.secrets_dir).read("valkey.password")
    return f"redis://:{password}@127.0.0.1:{settings.valkey_port}/{database}"


def _documents(settings: Settings) -> Documents:
    url = settings.documents_url or f"sqlite://{settings.state_dir / 'documents.db'}"
    match urlsplit(url).scheme:
        case "sqlite":
            from adapters.sqlite import SqliteDocuments

            return SqliteDocuments(_path(url), timeout_s=settings.store_timeout_s)
        case scheme:
            raise _unknown("GGEN_DOCUMENTS_URL", scheme, "sqlite:///path")


def _objects(settings: Settings) -> Objects:
    url = settings.objects_url or f"file://{settings.state_dir / 'objects'}"
    match urlsplit(url).scheme:
        case "file":
            from adapters.directory import DirectoryObjects

            return DirectoryObjects(_path(url))
        case scheme:
            raise _unknown("GGEN_OBJECTS_URL", scheme, "file:///path")


def _signals(settings: Settings) -> Signals:
    match urlsplit(url := signals_url(settings)).scheme:
        case "redis" | "rediss":
            from adapters.streams import StreamSignals

            return StreamSignals(url)
        case scheme:
            raise _unknown("GGEN_SIGNALS_URL", scheme, "redis://host:port/database")


def _memory(settings: Settings) -> Memory:
    match urlsplit(url := memory_url(settings)).scheme:
        case "redis" | "rediss":
            from adapters.valkey import ValkeyMemory

            return ValkeyMemory(url)
        case scheme:
            raise _unknown("GGEN_MEMORY_URL", scheme, "redis://host:port/database")


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _unknown(name: str, scheme: str, known: str) -> InputError:
    return InputError("unknown-backend", f"{name}: no backend {scheme[:32]!r}. Known: {known}")
