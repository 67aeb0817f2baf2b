"""What every Signals adapter must do."""

import pytest

from adapters.streams import StreamSignals
from governor.errors import InputError, OutageError
from ports.signals import Signals
from tests.conftest import Valkey


@pytest.fixture(params=["streams"])
def signals(request: pytest.FixtureRequest, valkey: Valkey) -> Signals:
    return StreamSignals(valkey.url)


def test_a_topic_is_created_once(signals: Signals) -> None:
    assert signals.exists("once") is False
    assert signals.create("once") is True
    assert signals.create("once") is False
    assert signals.exists("once") is True


def test_what_is_published_waits_to_be_acknowledged(signals: Signals) -> None:
    signals.create("waits")

    ids = {signals.publish("waits", b"{}") for _ in range(3)}

    assert len(ids) == 3
    assert signals.backlog("waits") == 3


def test_a_topic_that_is_not_there_takes_nothing(signals: Signals) -> None:
    with pytest.raises(InputError, match="no topic"):
        signals.publish("nowhere", b"{}")
    assert signals.exists("nowhere") is False


def test_a_message_has_a_bound(signals: Signals) -> None:
    signals.create("bound")

    with pytest.raises(InputError):
        signals.publish("bound", b"x" * (64 * 1024 + 1))


def test_a_deleted_topic_is_gone_with_its_messages(signals: Signals) -> None:
    signals.create("gone")
    signals.publish("gone", b"{}")
    signals.delete("gone")
    signals.delete("gone")

    assert signals.exists("gone") is False
    assert signals.create("gone") is True
    assert signals.backlog("gone") == 0


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(OutageError):
        StreamSignals("redis://127.0.0.1:1/0").create("x")
