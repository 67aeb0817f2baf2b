"""Opens the ports that settings name: the only module that names a backend.

An SDK is imported in the branch that chose it, so a machine without it still runs the others.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from adapters.alerts import PostedAlerts, unknown_addresses
from adapters.calls import GuardedCalls, networks
from adapters.drilled import DrilledDocuments, Switch
from adapters.local.clock import BootNote, SystemClock
from adapters.local.key_files import KeyFiles
from adapters.local.secret_files import SecretFiles
from adapters.local.system import SystemProcesses
from adapters.pushers import AnyPusher, TokenPushers
from config.settings import Settings, load, variable
from governor.errors import InputError, OutageError
from ledger.checkpoint import check_vkey
from ports import Ports, Times
from ports.broadcasts import Hearing
from ports.documents import Documents
from ports.memory import Memory, Notices
from ports.objects import Objects
from ports.pushers import Pushers
from ports.signals import Signals
from ports.traces import Traces, Untraced

_BROKER, _MEMORY, _SIGNALS = 0, 1, 2


def ports() -> Ports:
    """This process's ports, opened on first use. A forked child opens its own."""
    return _ports_of(os.getpid())


@cache
def _ports_of(_pid: int) -> Ports:
    return open_ports(load())


def open_ports(settings: Settings) -> Ports:
    """Open every port. Connections are made when first used, never here.

    Raises:
        InputError: a URL names a backend that does not exist.
    """
    memory, secrets = _memory(settings), SecretFiles(settings.secrets_dir)
    clock = _clock(settings, memory)
    switch = Switch(memory.drill, settings.probe_interval_s / 5, memory.answered_s)
    return Ports(
        documents=DrilledDocuments(
            open_documents(settings, clock.now), switch, settings.store_timeout_s
        ),
        objects=_objects(settings, "objects_url"),
        spool=_objects(settings, "spool_url" if settings.spool_url else "objects_url"),
        archives=_objects(settings, "archive_url" if settings.archive_url else "objects_url"),
        signals=_signals(settings),
        memory=memory,
        secrets=secrets,
        keys=KeyFiles(settings.keys_dir, settings.ledger_origin),
        alerts=PostedAlerts(secrets, memory),
        clock=clock,
        processes=SystemProcesses(),
        pushers=_pushers(settings),
        calls=GuardedCalls(networks(settings.action_networks)),
        traces=_traces(settings),
        times=Times(**{each.name: getattr(settings, each.name) for each in fields(Times)}),
        store_name=urlsplit(settings.documents_url).scheme or "sqlite",
        policy_keys=_policy_keys(settings),
    )


def _clock(settings: Settings, memory: Memory) -> SystemClock:
    host = urlsplit(settings.memory_url).hostname
    is_elsewhere = host not in (None, "localhost", "127.0.0.1", "::1")
    return SystemClock(boot_note(settings), memory.time, is_elsewhere=is_elsewhere)


def boot_note(settings: Settings) -> BootNote:
    """What the programs of this machine, or container, take for the time."""
    return BootNote(settings.state_dir / "run" / "clock.json")


def settle_time(settings: Settings) -> datetime:
    """The time of programs that start from now on; the note is kept while the system runs.

    A stack that starts follows the machine's clock as it is; one under way keeps its time.
    """
    note, memory = boot_note(settings), _memory(settings)
    try:
        is_running = memory.alive(["health"])["health"]
    except OutageError:
        is_running = False
    finally:
        memory.close()
    if not is_running:
        note.forget()
    return _clock(settings, memory).now()


def _traces(settings: Settings) -> Traces:
    if not settings.otlp_endpoint:
        return Untraced()
    try:
        from adapters.otlp import OtlpTraces
    except ImportError:
        raise InputError(
            "no-otlp", "GGEN_OTLP_ENDPOINT needs OpenTelemetry's exporter: make gcp"
        ) from None
    return OtlpTraces(settings.otlp_endpoint)


def _policy_keys(settings: Settings) -> list[str]:
    keys = settings.policy_keys.split()
    for key in keys:
        check_vkey(key)
    return keys


def import_backends(settings: Settings) -> None:
    """Import what the settings' backends need, so that children forked later share it.

    Nothing is connected: a connection to Google must not be used before a fork.
    """
    open_ports(settings)


def unknown_alert_addresses(settings: Settings) -> list[int]:
    """The numbers, from 1, of the alert addresses that Apprise cannot deliver to."""
    return unknown_addresses(SecretFiles(settings.secrets_dir).alert_urls())


def open_notices(settings: Settings) -> Notices:
    """The listening half of Memory, for an event loop."""
    from adapters.valkey.memory import ValkeyNotices

    return ValkeyNotices(memory_url(settings))


def open_hearing(settings: Settings) -> Hearing:
    """The listening half of policies' versions, for a thread."""
    from adapters.valkey.broadcasts import ValkeyHearing

    return ValkeyHearing(memory_url(settings))


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
    """A database of the Valkey that ``ggen up`` starts; its password comes from its file.

    Raises:
        OutageError: there is no such file.
    """
    host = settings.valkey_host
    at = f"{f'[{host}]' if ':' in host else host}:{settings.valkey_port}"
    return f"redis://:{quote(_valkey_password(settings), safe='')}@{at}/{database}"


def _valkey_password(settings: Settings) -> str:
    file = settings.valkey_password_file
    if file is None:
        return SecretFiles(settings.secrets_dir).read("valkey.password")
    try:
        return file.read_text().strip()
    except OSError as error:
        raise OutageError("secret-missing", f"cannot read {file}: {error.strerror}") from None


def open_documents(
    settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Documents:
    """Documents alone.

    Args:
        settings: the store's address.
        now: the time of creation, where the store has no clock of its own.
    """
    url = settings.documents_url or f"sqlite://{quote(str(settings.state_dir / 'documents.db'))}"
    match urlsplit(url).scheme:
        case "sqlite":
            from adapters.local.sqlite import SqliteDocuments

            return SqliteDocuments(_path(url), timeout_s=settings.store_timeout_s, now=now)
        case "firestore":
            with _google("GGEN_DOCUMENTS_URL"):
                from adapters.gcp.firestore import FirestoreDocuments
            return FirestoreDocuments(
                _host(url, "GGEN_DOCUMENTS_URL", "firestore://project/database"),
                _rest(url, "GGEN_DOCUMENTS_URL") or "(default)",
                emulator_host=settings.firestore_emulator_host,
                timeout_s=settings.store_timeout_s,
            )
        case scheme:
            known = "sqlite:///path, firestore://project/database"
            raise _unknown("GGEN_DOCUMENTS_URL", scheme, known)


def documents_in(file: Path) -> Documents:
    """The documents in a copy of an embedded store."""
    from adapters.local.sqlite import SqliteDocuments

    return SqliteDocuments(file)


def documents_file(settings: Settings) -> Path | None:
    """The file of SQLite's Documents; None where they lie elsewhere."""
    if not settings.documents_url:
        return settings.state_dir / "documents.db"
    is_ours = urlsplit(settings.documents_url).scheme == "sqlite"
    return _path(settings.documents_url) if is_ours else None


def empty_memory(settings: Settings) -> bool:
    """Have Memory and the broker lose everything, so that both are rebuilt; False: not reached."""
    from redis import Redis, RedisError

    try:
        for url in (broker_url(settings), memory_url(settings)):
            with Redis.from_url(url, socket_connect_timeout=1) as client:
                client.flushdb()
    except (RedisError, OSError, OutageError):
        return False
    return True


def object_folders(settings: Settings) -> dict[str, Path]:
    """The folders of embedded objects, each once: ``objects``, and those that lie apart."""
    found = dict[str, Path]()
    for kind, url in _object_urls(settings).items():
        if urlsplit(url).scheme == "file" and _path(url) not in found.values():
            found[kind] = _path(url)
    return found


def objects_elsewhere(settings: Settings) -> dict[str, str]:
    """The buckets of objects that lie in no folder."""
    urls = _object_urls(settings)
    return {kind: url for kind, url in urls.items() if urlsplit(url).scheme != "file"}


def _object_urls(settings: Settings) -> dict[str, str]:
    apart = {"spool": settings.spool_url, "archive": settings.archive_url}
    own = {"objects": settings.objects_url or _own_objects(settings)}
    return own | {kind: url for kind, url in apart.items() if url}


def _own_objects(settings: Settings) -> str:
    return f"file://{quote(str(settings.state_dir / 'objects'))}"


def _objects(settings: Settings, field: str) -> Objects:
    url = getattr(settings, field) or _own_objects(settings)
    match urlsplit(url).scheme:
        case "file":
            from adapters.local.directory import DirectoryObjects

            return DirectoryObjects(_path(url))
        case "gs":
            with _google(variable(field)):
                from adapters.gcp.storage import GcsObjects
            bucket = _host(url, variable(field), "gs://bucket", alone=True)
            return GcsObjects(bucket, emulator_url=settings.storage_emulator_host)
        case scheme:
            raise _unknown(variable(field), scheme, "file:///path, gs://bucket")


def _signals(settings: Settings) -> Signals:
    match urlsplit(url := signals_url(settings)).scheme:
        case "redis" | "rediss":
            from adapters.valkey.streams import StreamSignals

            return StreamSignals(url)
        case "pubsub":
            with _google("GGEN_SIGNALS_URL"):
                from adapters.gcp.monitoring import MonitoredLag
                from adapters.gcp.pubsub import PubsubSignals, Push
            project, host = (
                _host(url, "GGEN_SIGNALS_URL", "pubsub://project", alone=True),
                (settings.pubsub_emulator_host),
            )
            push = Push(_push(settings), _audience(settings), settings.push_service_account)
            lag = MonitoredLag(project, is_emulated=bool(host))
            return PubsubSignals(project, push, lag, emulator_host=host)
        case scheme:
            known = "redis://host:port/database, pubsub://project"
            raise _unknown("GGEN_SIGNALS_URL", scheme, known)


def _pushers(settings: Settings) -> Pushers:
    if settings.push_without_token:
        if settings.delivers_signals_itself or settings.uses_google:
            raise InputError(
                "push-without-token",
                "GGEN_PUSH_WITHOUT_TOKEN is for the Pub/Sub emulator, beside no store of Google's "
                "own: any client could send signals in every tenant's name. Remove it, or set "
                "PUBSUB_EMULATOR_HOST and the hosts of the other emulators",
            )
        return AnyPusher()
    if settings.delivers_signals_itself:
        return TokenPushers(SecretFiles(settings.secrets_dir))
    with _google("GGEN_SIGNALS_URL"):
        from adapters.gcp.oidc import OidcPushers
    return OidcPushers(_audience(settings), settings.push_service_account)


def _push(settings: Settings) -> str:
    """Where Pub/Sub pushes to; refused where Google could not, or would not say who it is."""
    is_https = urlsplit(settings.push_url).scheme == "https"
    is_known = settings.push_service_account and (is_https or settings.pubsub_emulator_host)
    if not (is_known or settings.push_without_token):
        raise InputError(
            "push-incomplete",
            "pubsub:// needs GGEN_PUSH_URL (https://…/v1/pubsub/signals, as Google reaches the "
            "ingress) and GGEN_PUSH_SERVICE_ACCOUNT (the e-mail it pushes as); with the emulator, "
            "which signs nothing, GGEN_PUSH_WITHOUT_TOKEN=true",
        )
    return settings.push_endpoint


def _audience(settings: Settings) -> str:
    return settings.push_audience or settings.push_endpoint


def _memory(settings: Settings) -> Memory:
    match urlsplit(url := memory_url(settings)).scheme:
        case "redis" | "rediss":
            from adapters.valkey.memory import ValkeyMemory

            if documents_file(settings):
                return ValkeyMemory(url, len(os.sched_getaffinity(0)))
            return ValkeyMemory(url)
        case scheme:
            raise _unknown("GGEN_MEMORY_URL", scheme, "redis://host:port/database")


@contextmanager
def _google(name: str) -> Iterator[None]:
    """Say what to install where Google's clients are missing."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            "not-installed",
            f"{name} needs Google's clients, which are not installed ({error.name}). Install them "
            "with: make gcp (or: pip install 'ggen-governor[gcp]')",
        ) from error


def _rest(url: str, name: str) -> str:
    rest = unquote(urlsplit(url).path).strip("/")
    if "/" in rest:
        raise InputError("bad-backend-url", f"{name}: {url[:64]!r} names more than a database")
    return rest


def _host(url: str, name: str, known: str, *, alone: bool = False) -> str:
    host = urlsplit(url).netloc
    if not host or (alone and _rest(url, name)):
        raise InputError("bad-backend-url", f"{name}: {url[:64]!r} is not of the form {known}")
    return host


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _unknown(name: str, scheme: str, known: str) -> InputError:
    return InputError("unknown-backend", f"{name}: no backend {scheme[:32]!r}. Known: {known}")
