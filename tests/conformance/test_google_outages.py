"""Google away: every call ends in bounded time, as an outage; a lost reply is found out."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
from google.api_core import exceptions as answers

from adapters.gcp.calls import Service, bounded
from adapters.gcp.firestore import FirestoreDocuments
from adapters.gcp.monitoring import MonitoredLag
from adapters.gcp.pubsub import PubsubSignals, Push
from adapters.gcp.storage import GcsObjects
from adapters.local.clock import SystemClock
from adapters.local.system import free_ports
from governor.errors import GovernorError, OutageError
from ports.documents import Create, Query, Update
from ports.signals import Topic
from tests.support.google import emulator, new_bucket
from tests.support.live import new_project
from tests.support.relay import relay, silent
from tests.support.waiting import until

pytestmark = pytest.mark.alone

REGION = "us-central1"
SERVICE = Service("Firestore", "documents-unavailable")


@dataclasses.dataclass(frozen=True)
class Away:
    """All adapters, whose server is away in one way."""

    documents: FirestoreDocuments
    signals: PubsubSignals
    objects: GcsObjects


def _away(host: str) -> Away:
    lag = MonitoredLag("p", is_emulated=True)
    return Away(
        FirestoreDocuments("p", emulator_host=host),
        PubsubSignals("p", Push("http://127.0.0.1:1/"), lag, emulator_host=host),
        GcsObjects("b", emulator_url=f"http://{host}"),
    )


def _check_health(away: Away) -> None:
    from tasks.health.check import probe

    probe(SimpleNamespace(documents=away.documents, clock=SystemClock()), "health/probe", 1)  # type: ignore[arg-type]


BOUNDS_S: dict[str, tuple[float, Callable[[Away], object]]] = {
    "action path: get": (1.1, lambda a: a.documents.get("runs/r")),
    "action path: commit": (1.1, lambda a: a.documents.commit([Create("runs/r", {})])),
    "health": (2.1, _check_health),
    "read": (8, lambda a: a.documents.scan(Query("runs"))),
    "publish": (10, lambda a: a.signals.publish("x", b"{}")),
    "admin: create": (30, lambda a: a.signals.create("x", REGION)),
    "admin: look": (30, lambda a: a.signals.look("x", REGION)),
    "admin: delete": (30, lambda a: a.signals.delete("x")),
    "object: get": (35, lambda a: a.objects.get("x")),
    "object: create": (35, lambda a: a.objects.create("x", b"x" * 100)),
}
"""What the issue allows; a slow machine is given a tenth more."""


def _took_s(away: Away) -> dict[str, float | str]:
    """How long each call took until it was told as an outage; else what came instead."""
    took: dict[str, float | str] = {}

    def call(name: str, ask: Callable[[Away], object]) -> None:
        began = time.monotonic()
        try:
            took[name] = f"answered: {ask(away)}"
        except OutageError:
            took[name] = time.monotonic() - began
        except BaseException as error:
            took[name] = repr(error)

    _all_at_once([partial(call, name, ask) for name, (_, ask) in BOUNDS_S.items()])
    away.documents.close()
    away.signals.close()
    return took


def _all_at_once(works: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_every_call_ends_in_its_bound_as_an_outage() -> None:
    """Of servers that refuse, and of servers that accept and never answer."""
    took: dict[str, dict[str, float | str]] = {}
    with silent() as mute:
        ways = {"refused": f"127.0.0.1:{free_ports(1)[0]}", "silent": mute}
        _all_at_once(
            [
                lambda way=way, host=host: took.update({way: _took_s(_away(host))})  # type: ignore[misc]
                for way, host in ways.items()
            ]
        )

    late = [
        (way, name, s)
        for way, calls in took.items()
        for name, s in calls.items()
        if isinstance(s, str) or s > 1.1 * BOUNDS_S[name][0]
    ]
    assert not late, took
    assert set(took) == {"refused", "silent"}


def test_an_outage_says_what_the_service_said_and_what_to_mend() -> None:
    def refuse(_left_s: float) -> object:
        raise answers.PermissionDenied("Missing or insufficient permissions.")

    with pytest.raises(OutageError, match="Missing or insufficient permissions.*roles"):
        bounded(refuse, 1, who=SERVICE)


@pytest.mark.parametrize(
    "error",
    [
        answers.RetryError("timed out", answers.ServiceUnavailable("gone")),
        answers.Unknown("?"),
        answers.DeadlineExceeded("late"),
        answers.ResourceExhausted("quota"),
        answers.Cancelled("x"),
    ],
)
def test_whatever_keeps_google_from_answering_is_an_outage(error: Exception) -> None:
    def fail(_left_s: float) -> object:
        raise error

    with pytest.raises(OutageError):
        bounded(fail, 0.2, who=SERVICE)


def test_an_outage_that_hides_in_a_value_error_is_found() -> None:
    def hide(_left_s: float) -> object:
        try:
            raise answers.ServiceUnavailable("gone")
        except answers.ServiceUnavailable:
            raise ValueError("The transaction has no transaction ID")  # noqa: B904  # as they do

    with pytest.raises(OutageError, match="gone"):
        bounded(hide, 0.2, who=SERVICE)
    with pytest.raises(ValueError, match="ours"):
        bounded(lambda _: int("ours"), 0.2, who=SERVICE)


def test_what_is_refused_for_a_moment_is_asked_again() -> None:
    left = [answers.ServiceUnavailable("x"), answers.Aborted("x")]

    def ask(_left_s: float) -> str:
        if left:
            raise left.pop()
        return "answered"

    assert bounded(ask, 5, who=SERVICE) == "answered"


def test_a_commit_whose_reply_is_lost_has_landed_and_is_told_as_an_outage(firestore: str) -> None:
    project = new_project()
    direct = FirestoreDocuments(project, emulator_host=firestore, timeout_s=10)
    with relay(firestore) as between:
        documents = FirestoreDocuments(project, emulator_host=between.host, timeout_s=3)
        (revision,) = documents.commit([Create("runs/r", {"n": 1})])
        between.deaf = b""
        with pytest.raises(OutageError):
            documents.commit([Update("runs/r", {"n": 2}, revision), Create("runs/s", {})])
        assert between.swallowed.is_set()
        until(lambda: direct.get("runs/s"))
        found = direct.get("runs/r")
        assert found
        assert found.data == {"n": 2}
        between.deaf = None
        between.cut()
        until(lambda: _answers(documents))
        documents.close()
    direct.close()


def _answers(documents: FirestoreDocuments) -> bool:
    try:
        return documents.get("runs/r") is not None
    except OutageError:
        return False


def test_a_topic_whose_replies_are_lost_is_whole_when_it_is_created_again(
    pubsub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.gcp.pubsub.ADMIN_S", 2.0)
    project, push = new_project(), Push("http://127.0.0.1:1/")
    lag = MonitoredLag(project, is_emulated=True)
    with relay(pubsub) as between:
        signals = PubsubSignals(project, push, lag, emulator_host=between.host)
        signals.look("x", REGION)
        between.deaf = b""
        failed: list[OutageError] = []

        def create() -> None:
            try:
                signals.create("x", REGION)
            except OutageError as error:
                failed.append(error)

        thread = threading.Thread(target=create)
        thread.start()
        assert between.swallowed.wait(5)
        thread.join()
        between.deaf = None
        between.cut()
        assert failed
        until(lambda: _creates(signals), 15)
        assert signals.look("x", REGION) is Topic.READY
        signals.close()


def _creates(signals: PubsubSignals) -> bool:
    try:
        signals.create("x", REGION)
    except OutageError:
        return False
    return True


def test_an_object_whose_reply_is_lost_is_found_by_its_content(storage: str) -> None:
    bucket = new_bucket(storage)
    with relay(storage) as between:
        objects = GcsObjects(bucket, emulator_url=f"http://{between.host}")
        between.deaf = b"storage#object"
        threading.Thread(target=_heal, args=(between,), daemon=True).start()

        assert objects.create("a/b", b"x") is False  # the first try had made it

    assert GcsObjects(bucket, emulator_url=storage).get("a/b") == b"x"


def _heal(between: "object") -> None:
    assert between.swallowed.wait(10)  # type: ignore[attr-defined]
    between.deaf = None  # type: ignore[attr-defined]
    between.cut()  # type: ignore[attr-defined]


def test_a_store_that_comes_back_is_heard_within_seconds() -> None:
    with emulator("firestore") as server:
        documents = FirestoreDocuments("p", emulator_host=server.host, timeout_s=2)
        until(lambda: _knows_nothing(documents))  # a fresh emulator takes its time
        server.stop()
        for _ in range(5):
            with pytest.raises(OutageError):
                documents.get("runs/r")
        server.start()
        began = time.monotonic()
        until(lambda: _knows_nothing(documents), 10)
        assert time.monotonic() - began < 5  # gRPC's own back-off would be up to two minutes

        server.freeze()
        with pytest.raises(OutageError):
            documents.get("runs/r")
        server.thaw()
        until(lambda: _knows_nothing(documents), 10)
        documents.close()


def _knows_nothing(documents: FirestoreDocuments) -> bool:
    try:
        return documents.get("runs/r") is None
    except OutageError:
        return False


@contextlib.contextmanager
def _answering(code: grpc.StatusCode, detail: str) -> Iterator[str]:
    """A server that gives one answer, whatever it is asked: ``host:port``."""

    class Always(grpc.GenericRpcHandler):
        def service(self, _: object) -> object:
            return grpc.stream_stream_rpc_method_handler(
                lambda _requests, context: context.abort(code, detail)
            )

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Always()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION])
def test_a_database_that_is_not_there_is_an_outage_and_not_an_empty_store(
    code: grpc.StatusCode,
) -> None:
    with _answering(code, "The database (default) does not exist for project p.") as host:
        documents = FirestoreDocuments("p", emulator_host=host)
        for call in (
            lambda: documents.get("runs/r"),
            lambda: documents.commit([Create("runs/r", {})]),
            lambda: documents.scan(Query("runs")),
        ):
            with pytest.raises(OutageError, match="does not exist"):
                call()
        documents.close()


ASKED_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL}


@pytest.mark.parametrize(
    "code", sorted(set(grpc.StatusCode) - {grpc.StatusCode.OK} - ASKED_AGAIN, key=str), ids=str
)
def test_whatever_google_answers_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    with _answering(code, "so it is") as host:
        away = _away(host)
        for call in (
            lambda: away.documents.get("runs/r"),
            lambda: away.documents.scan(Query("runs")),
            lambda: away.documents.commit([Create("runs/r", {})]),
            lambda: away.signals.publish("x", b""),
            lambda: away.signals.look("x", REGION),
        ):
            with contextlib.suppress(GovernorError):
                call()
        away.documents.close()
        away.signals.close()
