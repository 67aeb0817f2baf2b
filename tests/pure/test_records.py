from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from governor import paths, records, runs, tenancy, times
from governor.errors import ConflictError
from governor.records import AccountId, EventId

account = TypeAdapter(AccountId)


@pytest.mark.parametrize(
    "name", ["", "_system", "-x", "a/b", "a.b", "..", "a b", "é", "a\n", "a" * 129, "a\x00"]
)
def test_an_account_id_that_is_no_topic_path_or_document_id_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        account.validate_python(name)


@pytest.mark.parametrize("name", ["a", "customer-123", "A_b-9", "a" * 128])
def test_good_account_ids_pass(name: str) -> None:
    assert account.validate_python(name) == name


@pytest.mark.parametrize("event_id", ["", "é", "a" * 257, "tab\t"])
def test_event_ids_are_printable_ascii(event_id: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(EventId).validate_python(event_id)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_ids_of_different_parts_never_collide(a: str, b: str, c: str, d: str) -> None:
    same = paths.digest_id("x", a, b) == paths.digest_id("x", c, d)

    assert same == ((a, b) == (c, d))


def test_generations_of_a_governor_have_names_of_their_own() -> None:
    assert paths.fsm_id("acme", 1) == "governor-acme"
    assert paths.fsm_id("acme", 2) == "governor-acme-g2"


def test_text_order_of_timestamps_is_time_order() -> None:
    early = datetime(2026, 11, 23, 12, 0, 0, 0, UTC)
    late = (early + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=-5)))

    assert times.timestamp(early) < times.timestamp(late)
    assert times.instant(times.timestamp(late)) == late


def test_elapsed_time_is_never_negative() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)

    assert times.elapsed_ms(times.timestamp(now), now - timedelta(hours=1)) == 0
    assert times.elapsed_ms(times.timestamp(now), now + timedelta(milliseconds=7)) == 7


def test_everything_has_its_place() -> None:
    assert paths.tenant_path("a") == "tenants/a"
    assert paths.entitlement_path("a", "s") == "tenants/a/entitlements/s"
    assert paths.action_path("a", "x") == "tenants/a/actions/x"
    assert paths.receipt_path("_system", "r") == "tenants/_system/receipts/r"
    assert paths.seal_path("a", "s") == "tenants/a/seals/s"
    assert paths.checkpoint_path("a", "s") == "tenants/a/checkpoints/s"
    assert paths.mirror_name("a", "s") == "checkpoints/a/s"
    assert paths.run_path("r") == "runs/r"
    assert paths.turn_path("account/a") == "turns/a"
    assert paths.turn_path("policy/crm/pro") == "turns/_~policy~crm~pro"
    assert paths.turn_path("platform") == "turns/_~platform"
    assert paths.topic_name("a") == "tenants.a.signals"
    assert paths.run_id("e").startswith("run-")
    assert paths.action_id("a", "s").startswith("action-")


def test_a_record_evolves_by_a_validated_copy() -> None:
    claim = records.ProcessClaim(
        host="h", pid=1, process_started=1.0, claimed_at="2026-11-23T12:00:00.000000Z"
    )

    assert claim.evolve(pid=2).pid == 2
    assert claim.document()["pid"] == 1
    with pytest.raises(ValidationError):
        claim.evolve(pid="many")


@pytest.mark.parametrize(
    ("meant", "done", "is_made"),
    [("create", "created", True), ("change", "changed", False), ("keep", "found", False)],
)
def test_what_was_meant_becomes_what_was_done_and_only_the_created_is_ours(
    meant: str, done: str, is_made: bool
) -> None:
    effect = runs.Effect(meant)

    assert effect.done == done
    assert effect.done.done == done
    for each in (effect, effect.done):
        entry = runs.JournalEntry(state="intent", effects={"topic": each})
        assert entry.made("topic") is is_made
        assert entry.made("another") is False


def test_what_a_run_makes_names_its_attempt() -> None:
    event = tenancy.MarketplaceEvent(
        event_type="entitlement.created",
        event_id="e",
        account_id="a",
        sku_id="s",
        plan_type="p",
        region="r",
        event_time="2026-01-25T12:34:56.000000Z",
    )
    made = runs.Run(
        run_id="run-1",
        runbook="x",
        definition_sha256="0",
        account_id="a",
        trigger=runs.Trigger.WEBHOOK,
        inputs=event.document(),
        dedupe_key="e",
        turn="account/a",
        started_at=event.event_time,
        deadline_at=event.event_time,
    )

    assert made.maker == "run-1/1"
    assert made.evolve(attempt=2).maker == "run-1/2"


def _delivered(**changes: object) -> tenancy.MarketplaceEvent:
    return tenancy.MarketplaceEvent.model_validate(
        {
            "event_type": "entitlement.created",
            "event_id": "e-1",
            "account_id": "acme",
            "sku_id": "crm",
            "plan_type": "starter",
            "region": "us-central1",
            "event_time": "2026-11-23T12:00:00.000000Z",
            **changes,
        }
    )


def test_two_deliveries_of_an_event_without_a_time_say_the_same_whenever_they_arrive() -> None:
    later = "2026-11-23T13:00:00.000000Z"
    first = _delivered(is_timed_by_arrival=True)

    assert first.says_the_same(_delivered(is_timed_by_arrival=True, event_time=later))
    assert not first.says_the_same(_delivered(is_timed_by_arrival=True, plan_type="enterprise"))
    assert _delivered().says_the_same(_delivered())
    assert not _delivered().says_the_same(_delivered(event_time=later))


def test_an_event_takes_effect_when_the_marketplace_says_or_else_when_it_happened() -> None:
    term = "2026-12-31T00:00:00.000000Z"

    assert _delivered().effective_at == _delivered().event_time
    assert _delivered(effective_at=term).effective_at == term
    assert not _delivered().says_the_same(_delivered(effective_at=term))
    arrived = _delivered(is_timed_by_arrival=True, effective_at=term)
    again = _delivered(
        is_timed_by_arrival=True, effective_at=term, event_time="2026-11-24T12:00:00.000000Z"
    )
    assert arrived.says_the_same(again)
    assert not arrived.says_the_same(_delivered(is_timed_by_arrival=True))


@pytest.mark.parametrize("former", ["stable", "degraded", "active"])
def test_an_entitlement_of_release_0_1_0_is_active(former: str) -> None:
    stored = tenancy.Entitlement.stored(
        {
            "account_id": "acme",
            "sku_id": "crm",
            "plan_type": "starter",
            "policy_version": "1.0.0",
            "region": "us-central1",
            "state": former,
            "operating_state": "idle",
            "concurrent_actions": 1,
            "monthly_actions": 1,
            "event_time": "2026-11-23T12:00:00.000000Z",
            "run_id": "run-1",
        }
    )

    assert stored.state == "active"
    assert not stored.is_counted
    assert paths.tombstone_path("acme", stored.entitlement_id) == "tenants/acme/tombstones/crm"


def test_a_text_lies_beside_the_ledger_under_its_receipts_id() -> None:
    assert paths.text_path("acme", "r") == "tenants/acme/texts/r"


class _Chosen(runs.StepResult):
    step = "book.choose"

    name: str


def _stored_by_release_0_1_0(**changes: object) -> dict[str, object]:
    event = _delivered().document()
    del event["entitlement_id"]
    return {
        "run_id": "run-1",
        "runbook": "book",
        "definition_sha256": "0",
        "account_id": "acme",
        "event_id": "e-1",
        "body_sha256": "0" * 64,
        "body": "{}",
        "event": event,
        "started_at": "2026-11-23T12:00:00.000000Z",
        "deadline_at": "2026-11-23T12:01:00.000000Z",
        **changes,
    }


def test_a_run_of_release_0_1_0_was_triggered_by_a_webhook() -> None:
    run = runs.Run.stored(_stored_by_release_0_1_0())

    assert (run.trigger, run.dedupe_key, run.turn) == ("webhook", "e-1", "account/acme")
    event = tenancy.MarketplaceEvent.stored(run.inputs)
    assert event.entitlement_id == event.sku_id == "crm"
    assert event.entitlement_path == "tenants/acme/entitlements/crm"
    assert runs.Run.stored(run.document()) == run
    assert not run.has_turn


def test_a_steps_result_is_read_by_its_type_once_the_step_is_done() -> None:
    run = runs.Run.stored(_stored_by_release_0_1_0())
    intent = runs.JournalEntry(state="intent", result={"name": "x"})
    with pytest.raises(ConflictError):
        _Chosen.of(run)
    with pytest.raises(ConflictError):
        _Chosen.of(run.evolve(journal={"book.choose": intent}))

    done = run.evolve(journal={"book.choose": intent.evolve(state="done")})

    assert _Chosen.of(done).name == "x"


def test_what_starts_a_run_names_it() -> None:
    other = paths.triggered_run_id("book", "command", "k")
    assert other == paths.triggered_run_id("book", "command", "k")
    assert other != paths.triggered_run_id("book", "schedule", "k")


def test_a_moment_is_a_whole_number_of_microseconds() -> None:
    assert times.microseconds("1970-01-01T00:00:01.000002Z") == 1_000_002
