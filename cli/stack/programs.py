"""The embedded start: what must lie in the state directory before anything runs."""

import errno
import os
import shlex
import socket
import sys
from importlib.resources import files
from pathlib import Path

from adapters.local.key_files import KeyFiles
from adapters.local.secret_files import SecretFiles
from adapters.wiring import open_documents, open_ports, settle_time, unknown_alert_addresses
from cli.stack import format as release
from config.settings import Settings
from governor.errors import GovernorError, InputError, OutageError
from tasks.governors import policies

_VALKEY = """\
# Written by ggen up at every start.
bind 127.0.0.1
port {port}
dir {folder}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
requirepass {password}
daemonize no
set-proc-title no
loglevel warning
logfile ""
"""
_FLOWER = """\
# Written by ggen up at every start.
address = {address}
port = {port}
basic_auth = [{login}]
cookie_secret = {cookie}
read_only = True
tasks_columns = "name,state,kwargs,exception,result,received,runtime"
purge_offline_workers = 3600
max_tasks = 10000
logging = "none"
"""
_SUPERVISORD = """\
; Written by ggen up at every start. Its paths are relative to the state directory: whatever
; characters that has, supervisord reads none of them.
[supervisord]
nodaemon = true
logfile = log/supervisord.log
logfile_maxbytes = 10MB
logfile_backups = 1
pidfile = run/supervisord.pid
umask = 077
{user}[group:store]
programs = valkey
priority = 10
[group:ggen]
programs = {programs}
priority = 20
"""
_PROGRAM = """\
[program:{name}]
command = {command}
startsecs = 0
autorestart = true
stopwaitsecs = {stop_wait_s}
killasgroup = true
redirect_stderr = true
stdout_logfile = log/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 1
"""


def commands(settings: Settings) -> dict[str, list[str]]:
    """Program -> command line, for the state directory. None of them contains a secret."""
    python = [sys.executable, "-P", "-m"]  # never a module of the working directory
    celery = [*python, "celery", "-q", "-A"]
    worker = [
        *celery,
        "tasks",
        "worker",
        "-P",
        "prefork",
        "--without-gossip",
        "--without-mingle",
        "-l",
        "INFO",
    ]
    programs = {
        "valkey": [*python, "cli.stack.valkey", "run/valkey.conf"],
        "ingress": [*python, "ingress"],
        "health": [*worker, "-Q", "health", "-c", "2", "-n", "health@%h"],
        "actions": [
            *worker,
            "-Q",
            "actions",
            "-c",
            str(settings.actions_concurrency),
            "-n",
            "actions@%h",
        ],
        "runbooks": [
            *worker,
            "-Q",
            "runbooks,ledger",
            "-c",
            str(settings.runbooks_concurrency),
            "-n",
            "runbooks@%h",
        ],
        "beat": [*python, "tasks.schedule"],
        "flower": [
            *celery,
            "tasks.schedule",
            "flower",
            "--conf=run/flowerconfig.py",
            "--logging=none",
        ],
    }
    if settings.delivers_signals_itself:
        programs["pump"] = [*python, "adapters.valkey.pump"]
    return programs


def prepare(settings: Settings) -> list[str]:
    """Make the state directory whole: secrets, configuration, registered policies.

    Returns what its operator should know, a sentence each.

    Raises:
        OutageError: it cannot be read or written.
        InputError: a secret or policy is malformed; names the file and what to do.
        ConflictError: a newer release has written here; nothing was changed.
    """
    run = settings.state_dir / "run"
    try:
        for folder in (
            settings.state_dir,
            run,
            settings.log_dir,
            settings.state_dir / "valkey",
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _claim(settings)
        _make_private(settings)
        SecretFiles(settings.secrets_dir).create_missing()
        now = settle_time(settings)
        KeyFiles(settings.keys_dir, settings.ledger_origin).create_missing(now)
        _refuse_unless_writable(settings.secrets_dir / "tenants")
        for name, text in _configuration(settings).items():
            _write_private(run / name, text)
    except OSError as error:
        raise OutageError(
            "state-dir-unusable",
            f"cannot use the state directory {settings.state_dir}: {error.strerror}: "
            f"{error.filename}. Mend its mode, or set GGEN_STATE_DIR to another one",
        ) from error
    return _register_policies(settings)


def _claim(settings: Settings) -> None:
    documents = open_documents(settings)
    try:
        release.claim(documents)
    finally:
        documents.close()


def check_ports(settings: Settings) -> None:
    """Refuse to start while another process uses one of the ports.

    Raises:
        OutageError: a port is busy; names the port, its setting and who holds it.
    """
    for name, port in {
        "GGEN_HTTP_PORT": settings.http_port,
        "GGEN_FLOWER_PORT": settings.flower_port,
        "GGEN_VALKEY_PORT": settings.valkey_port,
    }.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise OutageError(
                    "port-busy",
                    f"port {port} is busy{_holder(port)}; nothing was started. "
                    f"Free it, or set {name} to another port",
                ) from error


def _configuration(settings: Settings) -> dict[str, str]:
    secrets = SecretFiles(settings.secrets_dir)
    keys = KeyFiles(settings.keys_dir, settings.ledger_origin)
    secrets.webhook_secrets(), secrets.tenant_key("probe"), secrets.api_token()
    if unknown := unknown_alert_addresses(settings):
        raise InputError(
            "unknown-alert-address",
            f"{settings.secrets_dir / 'alert.urls'}: Apprise knows no such address as number "
            f"{', '.join(map(str, unknown))}. Correct it, or put # before it",
        )
    keys.signer(), keys.ring()
    return {
        "valkey.conf": _VALKEY.format(
            port=settings.valkey_port,
            folder=_quoted(settings.state_dir / "valkey"),
            password=_quoted(secrets.read("valkey.password")),
        ),
        "flowerconfig.py": _FLOWER.format(
            address=repr(settings.flower_host),
            port=settings.flower_port,
            login=repr(f"ggen:{secrets.read('flower.password')}"),
            cookie=repr(secrets.read("flower.cookie")),
        ),
        "supervisord.conf": _supervisord(settings),
    }


def _supervisord(settings: Settings) -> str:
    programs = commands(settings)
    parts = [
        _SUPERVISORD.format(
            user="user = root\n" if os.geteuid() == 0 else "",  # else it warns of being root
            programs=",".join(name for name in programs if name != "valkey"),
        )
    ]
    parts += [
        _PROGRAM.format(
            name=name,
            command=shlex.join(command).replace("%", "%%"),
            stop_wait_s=2 if name == "valkey" else 5,
        )
        for name, command in programs.items()
    ]
    return "".join(parts)


def _register_policies(settings: Settings) -> list[str]:
    ports, notices = open_ports(settings), []
    if ports.policy_keys:
        return ["the sample policies are not registered: GGEN_POLICY_KEYS asks for signed ones"]
    try:
        for file in sorted(files("config").joinpath("policies").iterdir(), key=str):
            try:
                done = policies.register(ports, file.read_bytes())
            except GovernorError as error:
                raise InputError(error.code, f"policy {file.name}: {error.detail}") from error
            notices += not_in_force(done)
    finally:
        ports.documents.close()
    return notices


def not_in_force(done: policies.Registered) -> list[str]:
    """The sentence about a registered version that is not the one new entitlements get."""
    policy = done.policy
    if policy.policy_version == done.in_force:
        return []
    plan = f"{policy.sku_id}/{policy.plan_type}"
    return [f"policy {plan} {policy.policy_version} is registered; {done.in_force} stays in force"]


def _make_private(settings: Settings) -> None:
    """What lies in the state directory is its owner's alone, whatever made it."""
    secrets, keys = settings.secrets_dir, settings.keys_dir
    folders = (settings.state_dir, secrets, secrets / "tenants", keys)
    for path in (settings.state_dir, *(path for each in folders for path in each.glob("*"))):
        mode = path.stat().st_mode
        if not path.is_symlink() and mode & 0o077:
            try:
                path.chmod(mode & ~0o077)
            except OSError as error:
                if error.errno != errno.EROFS:  # a read-only mount sets the modes itself
                    raise


def _refuse_unless_writable(folder: Path) -> None:
    """The keys of new tenants are put here; without, each subscription would be undone."""
    if not os.access(folder, os.W_OK):
        raise OutageError(
            "secrets-read-only",
            f"{folder} cannot be written, and each new tenant's key is put there. Secrets may be "
            "mounted read-only, but for this folder: mount a writable volume over it",
        )


def _write_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def _quoted(path: Path | str) -> str:
    """A value in the double quotes of valkey.conf."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _holder(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                name = psutil.Process(connection.pid).name() if connection.pid else "?"
                return f" (held by {name}, process {connection.pid})"
    except psutil.Error:
        pass
    return ""
