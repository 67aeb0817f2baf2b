"""A steady load of signals, each answer noted: what clients saw, to compare receipts with."""

import itertools
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from adapters.local.secret_files import SecretFiles
from config.settings import Settings
from ingress.signature import sign

UNANSWERED = 0
"""The status of a signal whose connection broke: it may have been accepted."""

KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    *[("demo.succeed", {})] * 7,
    ("demo.sleep", {"seconds": 0.05}),
    ("demo.sleep", {"seconds": 2}),
    ("demo.fail", {"recoverable": True}),
)
"""One in five has to be undone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client saw; moments are of the wall clock, in seconds."""

    signal: dict[str, Any]
    asked_at: float
    answered_at: float
    status: int
    code: str
    action_id: str = ""


@dataclass
class Load:
    """Signals of one account, ``per_s`` a second in all, for as long as the block lasts.

    With ``per_s`` 0 each client asks again at once.
    """

    settings: Settings
    account_id: str
    per_s: float = 20.0
    clients: int = 12
    kinds: Sequence[tuple[str, dict[str, Any]]] = KINDS
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = SecretFiles(self.settings.secrets_dir).published_tenant_key(self.account_id)
        self._stopping = threading.Event()
        self._numbers = itertools.count(1)
        self._name = secrets.token_hex(4)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for _ in range(self.clients):
            self._threads.append(threading.Thread(target=self._ask_for_ever, daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more signals; wait for the answers to those under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def statuses(self) -> Counter[int]:
        """How often each status was seen."""
        return Counter(answer.status for answer in self.answers)

    def settled(self, within_s: float = 60.0) -> dict[str, str]:
        """Signal id -> action id, once all that were refused were accepted, asked for again.

        Those beyond the month's quota stay refused, and are left out.
        """
        accepted = {a.signal["signal_id"]: a.action_id for a in self.answers if a.status == 202}
        waiting = [a.signal for a in self.answers if a.signal["signal_id"] not in accepted]
        give_up_at = time.monotonic() + within_s
        with self._client() as http:
            while waiting:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"{len(waiting)} signals are refused still")
                answer = self._ask(http, waiting[0])
                if answer.status == 202:
                    accepted[waiting.pop(0)["signal_id"]] = answer.action_id
                elif answer.code == "quota-exceeded":
                    self.answers.append(answer)
                    waiting.pop(0)
                elif answer.status in (UNANSWERED, 429, 503):
                    self.answers.append(answer)
                    time.sleep(0.05)
                else:
                    raise RuntimeError(f"{answer.status} {answer.code}")
        return accepted

    def _ask_for_ever(self) -> None:
        every_s = self.clients / self.per_s if self.per_s else 0.0
        with self._client() as http:
            self._stopping.wait(random.random() * every_s)  # noqa: S311  # no secret
            while not self._stopping.is_set():
                next_s = time.monotonic() + every_s
                kind, payload = random.choice(self.kinds)  # noqa: S311
                signal = {
                    "signal_id": f"{self._name}-{next(self._numbers)}",
                    "type": kind,
                    "payload": payload,
                }
                self.answers.append(self._ask(http, signal))
                self._stopping.wait(max(0.0, next_s - time.monotonic()))

    def _client(self) -> httpx.Client:
        base_url = f"http://{self.settings.http_host}:{self.settings.http_port}"
        return httpx.Client(base_url=base_url, timeout=30, trust_env=False)

    def _ask(self, http: httpx.Client, signal: dict[str, Any]) -> Answer:
        body = json.dumps(signal).encode()
        asked_at = time.time()  # noqa: TID251  # the client's own clock
        try:
            answer = http.post(
                f"/v1/tenants/{self.account_id}/signals",
                content=body,
                headers={"X-Signature": sign(body, self._key)},
            )
        except httpx.TransportError as error:
            now = time.time()  # noqa: TID251
            return Answer(signal, asked_at, now, UNANSWERED, type(error).__name__)
        told = answer.json()
        return Answer(
            signal,
            asked_at,
            time.time(),  # noqa: TID251
            answer.status_code,
            told.get("type", "").rpartition(":")[2],
            told.get("action_id", ""),
        )
