"""Settings: the only reader of the environment.

Every field is ``GGEN_`` and its name in capitals. The string below each says unit, default and why.
"""

import difflib
import os
import re
from functools import cache
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from governor.errors import InputError
from governor.records import Region

_PREFIX = "GGEN_"
_SERVICE_LINK = re.compile(
    r"GGEN_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class Settings(BaseSettings):
    """Frozen; read once per process by ``load``."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )

    state_dir: Path = Path(".ggen")
    """Where the embedded start keeps everything; relative to the working directory."""

    http_host: str = "127.0.0.1"
    """Address the ingress listens on. Loopback: TLS and the outside belong to a proxy."""

    http_port: int = Field(default=8080, ge=1, le=65535)
    """Port of the ingress."""

    trusted_proxies: int = Field(default=0, ge=0, le=8)
    """Proxies of yours in front of the ingress. With n the address a failure is counted against is
    the nth from the right of X-Forwarded-For; with 0 it is the peer's."""

    flower_host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:-]+$")
    """Address Flower listens on. Loopback, but in a container, whose network is its own."""

    flower_port: int = Field(default=5555, ge=1, le=65535)
    """Port of Flower, on loopback, behind a password, read-only."""

    valkey_port: int = Field(default=6390, ge=1, le=65535)
    """Port of the embedded Valkey, on loopback, behind a password."""

    valkey_host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.:_-]+$", max_length=255)
    """Where that Valkey is found: another host only where it runs in a container of its own."""

    valkey_password_file: Path | None = None
    """The file with its password; empty: ``valkey.password`` among the secrets."""

    documents_url: str = ""
    """``sqlite:///absolute/path`` or ``firestore://project/database``; empty: ``documents.db`` in
    the state directory."""

    objects_url: str = ""
    """``file:///absolute/path`` or ``gs://bucket``; empty: ``objects`` in the state directory."""

    spool_url: str = ""
    """Like ``objects_url``, for outcomes that wait until Documents are back; empty: there. What has
    landed is removed, so a place that keeps its objects (a retention policy) will not do."""

    archive_url: str = ""
    """Like ``objects_url``, for the archives of cancelled customers; empty: there. A bucket of its
    own may keep what lies in it for years, by a retention policy."""

    memory_url: str = ""
    """``redis://…/n``; empty: database 1 of the embedded Valkey."""

    signals_url: str = ""
    """``redis://…/n`` or ``pubsub://project``; empty: database 2 of the embedded Valkey."""

    broker_url: str = ""
    """Celery's broker; empty: database 0 of the embedded Valkey."""

    push_url: str = Field(default="", max_length=1024)
    """Where signals are pushed to: ``/v1/pubsub/signals`` of the ingress as the pump reaches it, or
    as Google does, and then by ``https``. Empty: the ingress of this machine."""

    push_audience: str = Field(default="", max_length=1024)
    """The audience of a push's OIDC token; empty: ``push_url``."""

    push_service_account: str = Field(default="", max_length=320)
    """E-mail of the service account that Pub/Sub pushes as; needed with ``pubsub://``."""

    push_without_token: bool = False
    """Accept unsigned pushes, as the Pub/Sub emulator sends them. Refused without
    ``PUBSUB_EMULATOR_HOST``: any client could send signals in every tenant's name."""

    firestore_emulator_host: str = Field(default="", validation_alias="FIRESTORE_EMULATOR_HOST")
    """``host:port`` of an emulator, under Google's own name; empty: Google."""

    pubsub_emulator_host: str = Field(default="", validation_alias="PUBSUB_EMULATOR_HOST")
    """``host:port`` of an emulator, under Google's own name; empty: Google."""

    storage_emulator_host: str = Field(default="", validation_alias="STORAGE_EMULATOR_HOST")
    """URL of an emulator, under Google's own name; empty: Google."""

    policy_keys: str = Field(default="", max_length=8192)
    """Verifier keys (``name+id+base64``, as ``ggen policy sign`` prints them), spaces between them.
    A policy must then be signed by one of them. Empty: who may bring policies is trusted."""

    action_networks: str = Field(default="", max_length=4096)
    """Networks (CIDR), spaces between them, that actions by HTTP may reach besides public
    addresses, there also without TLS. Empty: none, so that no policy reaches internal services."""

    otlp_endpoint: str = Field(default="", pattern=r"^(https?://[ -~]+)?$", max_length=1024)
    """Where traces go, as OTLP over HTTP (``http://collector:4318/v1/traces``), built from the
    record once an action or a run has ended. Needs ``make gcp``. Empty: nowhere."""

    actions_concurrency: int = Field(default=8, ge=1, le=512)
    """Actions one worker runs at once; 8 keeps 2 cores busy with handlers that wait."""

    runbooks_concurrency: int = Field(default=2, ge=1, le=64)
    """Steps of runs one worker carries out at once."""

    ledger_origin: str = Field(
        default="ledger.ggen.localhost",
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
        max_length=200,
    )
    """What this platform's ledgers are called: a name of your own domain, as an auditor will see
    it, before the first subscription. A log's own name is this, a slash and the account."""

    default_region: Region = "us-central1"
    """Region of an entitlement whose webhook names none (D4)."""

    webhook_wait_s: float = Field(default=5.0, ge=0, le=60)
    """How long a webhook is held open for its receipt before a 202 (D6)."""

    run_deadline_s: int = Field(default=60, ge=1, le=3600)
    """How long a run may act before it is undone; far above the 2 s it takes."""

    run_queue_timeout_s: int = Field(default=900, ge=1, le=86_400)
    """How long a run may wait to begin, for workers or for its account's turn: 15 minutes."""

    store_timeout_s: float = Field(default=1.0, gt=0, le=30)
    """Bound of one call to Documents; 1 s on the path of an action (D9)."""

    health_interval_s: float = Field(default=10.0, ge=0.1, le=60)
    """Seconds between health checks (D11)."""

    probe_interval_s: float = Field(default=2.0, ge=0.1, le=60)
    """Seconds between health checks while nothing is admitted (D11)."""

    lease_s: float = Field(default=33, ge=1, le=300)
    """How long one good health check lets the system admit (D11: three checks and their bound)."""

    retention_days: int = Field(default=400, ge=0, le=36_500)
    """How long actions and runs that have ended keep what was written: payloads, results, bodies,
    texts. Receipts, states and times stay. 0: for ever."""

    tally_interval_s: float = Field(default=60.0, ge=1, le=3600)
    """How often refusals are receipted in aggregate (D7)."""

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _lease_outlasts_checks(self) -> Self:
        if self.probe_interval_s > self.health_interval_s:
            raise ValueError("probe_interval_s must not be longer than health_interval_s")
        if self.lease_s < 2 * self.health_interval_s:
            raise ValueError("lease_s must outlast two health_interval_s")
        return self

    @property
    def delivers_signals_itself(self) -> bool:
        """Whether a signal pump plays Pub/Sub's part."""
        return urlsplit(self.signals_url).scheme != "pubsub"

    @property
    def push_endpoint(self) -> str:
        """Where signals are pushed to."""
        return self.push_url or f"{self.local_url}/v1/pubsub/signals"

    @property
    def local_url(self) -> str:
        """Where the ingress answers on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.http_host, self.http_host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    @property
    def uses_google(self) -> bool:
        """Whether any store is Google's own, and no emulator."""
        return any(
            urlsplit(url).scheme == scheme and not host
            for url, scheme, host in (
                (self.documents_url, "firestore", self.firestore_emulator_host),
                (self.signals_url, "pubsub", self.pubsub_emulator_host),
                (self.objects_url, "gs", self.storage_emulator_host),
                (self.spool_url, "gs", self.storage_emulator_host),
                (self.archive_url, "gs", self.storage_emulator_host),
            )
        )

    @property
    def is_emulated(self) -> bool:
        """Whether every store is an emulator of Google's."""
        urls = {
            urlsplit(url).scheme for url in (self.documents_url, self.signals_url, self.objects_url)
        }
        return urls == {"firestore", "pubsub", "gs"} and not self.uses_google

    @property
    def secrets_dir(self) -> Path:
        """Where secrets lie, mode 0600 (D22)."""
        return self.state_dir / "secrets"

    @property
    def keys_dir(self) -> Path:
        """Where the ledger's signing keys lie, mode 0600 (D22)."""
        return self.state_dir / "keys"

    @property
    def pins_dir(self) -> Path:
        """The newest checkpoint of each ledger that was verified from this machine."""
        return self.state_dir / "pins"

    @property
    def log_dir(self) -> Path:
        """The logs of the embedded start, a file for each program."""
        return self.state_dir / "log"

    @property
    def demo_file(self) -> Path:
        """Where the demo actions record what really happened (D22)."""
        return self.state_dir / "demo-actions.jsonl"


@cache
def load() -> Settings:
    """The settings of this process.

    Raises:
        InputError: a value out of bounds, or an unknown ``GGEN_`` variable. The message is one
            line; it names the variable and the nearest existing name.
    """
    known = {variable(name) for name in Settings.model_fields}
    for name in sorted(os.environ):
        if _SERVICE_LINK.fullmatch(name.upper()):
            continue  # Kubernetes tells every pod of a Service that is called ggen
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}"
            raise InputError("unknown-setting", f"there is no setting {name}. {hint}")
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{variable(str(f['loc'][0])) if f['loc'] else 'settings'}: {f['msg']}"
            for f in error.errors(include_url=False, include_input=False)
        )
        raise InputError("bad-setting", f"{faults}. Correct it in the environment") from None


def variable(name: str) -> str:
    """The environment variable of a field; Google's own variables keep their names."""
    field = Settings.model_fields.get(name)
    return str(
        (field and field.validation_alias) or (name if name.isupper() else _PREFIX + name.upper())
    )


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process that must see exactly these settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(_PREFIX)}
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    return {
        **inherited,
        **{variable(name): str(value) for name, value in changed.items()},
        f"{_PREFIX}STATE_DIR": str(settings.state_dir),
    }
