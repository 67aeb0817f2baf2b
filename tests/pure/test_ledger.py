import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import InputError
from governor.times import timestamp
from ledger import canonical, contracts
from ledger.keys import ALWAYS, KeyRing, TrustedKey
from ledger.receipt import (
    SignedReceipt,
    Signer,
    envelope,
    from_envelope,
    is_signed_by,
    receipt_id,
)
from ledger.verify import Check, Recorded, verify

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = TrustedKey.of(SIGNER.public_key, ALWAYS)
RING = KeyRing(origin="ledger.example", keys=(KEY,))
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def _receipt(account_id: str = "acme", at: datetime = NOW, **changes: Any) -> contracts.Receipt:
    return contracts.validate(
        {
            "receipt_id": receipt_id(account_id, "action_complete", "action-1"),
            "timestamp": timestamp(at),
            "operation": "action_complete",
            "account_id": account_id,
            "status": "success",
            "duration_ms": 12,
            "action_id": "action-1",
            "sku_id": "crm",
            "signal_type": "seats",
            "handler": "crm.resize",
            "policy_version": "1.0.0",
            "queue_ms": 5,
            "run_ms": 7,
            **changes,
        }
    )


def _recorded(stored: SignedReceipt, at: datetime = NOW) -> Recorded:
    return Recorded(stored, stored.receipt_id, at)


def _faults(entry: Recorded, **more: Any) -> dict[str, str]:
    found = verify(entry, account_id="acme", ring=RING, **more)
    return {f.check: f.fault for f in found if not f.holds}


# RFC 8785, appendix B: IEEE 754 bits and the text they must have.
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", b"0"),
        ("8000000000000000", b"0"),
        ("0000000000000001", b"5e-324"),
        ("7fefffffffffffff", b"1.7976931348623157e+308"),
        ("4340000000000000", b"9007199254740992"),
        ("4430000000000000", b"295147905179352830000"),
        ("44b52d02c7e14af5", b"9.999999999999997e+22"),  # pragma: allowlist secret
        ("44b52d02c7e14af6", b"1e+23"),  # pragma: allowlist secret
        ("444b1ae4d6e2ef4e", b"999999999999999700000"),
        ("444b1ae4d6e2ef50", b"1e+21"),  # pragma: allowlist secret
        ("3eb0c6f7a0b5ed8c", b"9.999999999999997e-7"),  # pragma: allowlist secret
        ("3eb0c6f7a0b5ed8d", b"0.000001"),  # pragma: allowlist secret
        ("41b3de4355555553", b"333333333.3333332"),
        ("becbf647612f3696", b"-0.0000033333333333333333"),  # pragma: allowlist secret
    ],
)
def test_numbers_are_written_as_rfc_8785_lists_them(bits: str, text: bytes) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical.dumps(number) == text


def test_members_are_sorted_by_utf16_code_units() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}

    keys = list(json.loads(canonical.dumps(value)))

    assert keys == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, "\ud800", {1: 2}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "[9007199254740993]",
        "[1" + "0" * 400 + "]",
        '{"a":1,"a":1}',
        "[NaN]",
        "[1",
        "[" * 100_000,
        b"\xff",
    ],
)
def test_json_that_two_readers_could_take_differently_is_refused(text: str | bytes) -> None:
    with pytest.raises(InputError):
        canonical.loads(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_is_a_fixed_point(value: Any) -> None:
    once = canonical.dumps(value)

    assert canonical.dumps(canonical.loads(once)) == once


def test_every_operation_of_the_decisions_has_a_contract_and_a_schema() -> None:
    decided = """entitlement_active entitlement_failed entitlement_plan_changed policy_upgraded
        policy_validation_failed policy_upgrade_skipped policy_rollback policy_forced governor_scaled
        governor_scale_reverted quota_exceeded degraded_mode degraded_mode_cleared action_complete
        action_timeout action_failed action_rolled_back rollback_failed decommission_start
        decommission_complete decommission_failed webhook_rejected signals_refused alert_raised
        compensation_failed receipt_conflict run_cancelled key_rotated tenant_purged""".split()

    assert set(decided) <= set(contracts.MODELS)
    always = {"receipt_id", "timestamp", "operation", "account_id", "status", "duration_ms"}
    for versions in contracts.schemas().values():
        for schema in versions.values():
            assert always <= set(schema["required"])


@pytest.mark.parametrize("field", sorted(_receipt().model_dump(exclude_none=True)))
def test_a_missing_field_is_named(field: str) -> None:
    fields = _receipt().model_dump(mode="json", exclude_none=True)
    del fields[field]

    with pytest.raises(InputError, match=field):
        contracts.validate(fields)


def test_a_receipts_id_is_a_uuid_version_8_of_its_operation() -> None:
    first = receipt_id("acme", "action_complete", "a", 1)

    assert first == receipt_id("acme", "action_complete", "a", 1)
    assert first[14] == "8"
    assert first[19] in "89ab"
    others = {
        receipt_id("acm", "action_complete", "a"),
        receipt_id("acme", "action_failed", "a"),
        receipt_id("acme", "action_complete", "b"),
        receipt_id("acme", "action_complete", "a", 2),
    }
    assert len(others | {first}) == 5


def test_no_id_is_made_for_an_operation_nobody_knows() -> None:
    with pytest.raises(InputError, match="no operation"):
        receipt_id("acme", "invented", "a")


def test_signing_is_deterministic_and_over_exactly_the_stored_text() -> None:
    stored = SIGNER.sign(_receipt())

    assert stored == SIGNER.sign(_receipt())
    assert is_signed_by(stored, SIGNER.public_key)
    assert stored.payload.encode() == canonical.dumps(json.loads(stored.payload))
    assert not is_signed_by(stored.evolve(payload=stored.payload + " "), SIGNER.public_key)
    assert not is_signed_by(stored.evolve(signature="!"), SIGNER.public_key)


def test_an_honest_receipt_has_no_fault() -> None:
    assert _faults(_recorded(SIGNER.sign(_receipt()))) == {}


@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        ("payload", "{}", Check.IMMUTABILITY),
        ("signature", "AAAA", Check.IMMUTABILITY),
        ("key_id", "0" * 32, Check.IMMUTABILITY),
        ("sha256", "0" * 64, Check.IMMUTABILITY),
        ("receipt_id", "x", Check.INTEGRITY),
        ("account_id", "other", Check.INTEGRITY),
        ("operation", "action_failed", Check.INTEGRITY),
        ("timestamp", "2026-11-23T12:00:00.000001Z", Check.INTEGRITY),
        ("status", "failed", Check.INTEGRITY),
    ],
)
def test_a_change_of_any_stored_field_is_found(field: str, value: str, check: Check) -> None:
    stored = SIGNER.sign(_receipt()).evolve(**{field: value})

    assert check in _faults(Recorded(stored, _receipt().receipt_id, NOW))


@given(st.data())
def test_any_flipped_byte_of_the_signed_text_is_found(data: st.DataObject) -> None:
    stored = SIGNER.sign(_receipt())
    at = data.draw(st.integers(0, len(stored.payload) - 1))
    flipped = stored.payload[:at] + chr(ord(stored.payload[at]) ^ 1) + stored.payload[at + 1 :]

    assert Check.IMMUTABILITY in _faults(_recorded(stored.evolve(payload=flipped)))


def test_another_accounts_receipt_is_found_out() -> None:
    stored = SIGNER.sign(_receipt("other"))

    assert set(_faults(_recorded(stored))) == {Check.INTEGRITY}


def test_a_receipt_under_anothers_id_is_found_out() -> None:
    entry = Recorded(SIGNER.sign(_receipt()), receipt_id("acme", "action_failed", "x"), NOW)

    assert set(_faults(entry)) == {Check.INTEGRITY}


@pytest.mark.parametrize(
    ("offset_s", "off_s"), [(-5, 0), (-5.1, 5.1), (0, 0), (60, 0), (60.1, 60.1), (-7200, 7200)]
)
def test_a_clock_that_was_off_is_said_and_breaks_nothing(offset_s: float, off_s: float) -> None:
    entry = _recorded(SIGNER.sign(_receipt()), NOW + timedelta(seconds=offset_s))

    found = verify(entry, account_id="acme", ring=RING)

    assert all(each.holds for each in found)
    assert [each.off_s for each in found if each.check is Check.CLOCK] == [off_s] * bool(off_s)


def test_a_receipt_recorded_before_its_predecessor_is_out_of_order() -> None:
    entry = _recorded(SIGNER.sign(_receipt()))

    faults = _faults(entry, previous_recorded_at=NOW + timedelta(microseconds=1))

    assert set(faults) == {Check.ORDERING}


def test_a_validly_signed_receipt_that_breaks_its_contract_is_incomplete() -> None:
    broken = _receipt().model_copy(update={"handler": None})

    assert set(_faults(_recorded(SIGNER.sign(broken)))) == {Check.COMPLETENESS}


def test_text_that_is_no_timestamp_or_no_json_is_a_fault_not_a_crash() -> None:
    stored = SIGNER.sign(_receipt()).evolve(timestamp="yesterday", payload="[")

    assert set(_faults(_recorded(stored))) == {
        Check.IMMUTABILITY,
        Check.ORDERING,
        Check.INTEGRITY,
        Check.COMPLETENESS,
    }


def test_what_a_retired_key_signed_later_is_not_believed() -> None:
    ended = KEY.evolve(valid_until=timestamp(NOW - timedelta(seconds=61)))
    entry = _recorded(SIGNER.sign(_receipt()))

    found = verify(entry, account_id="acme", ring=RING.evolve(keys=[ended]))

    assert [f.check for f in found if not f.holds] == [Check.IMMUTABILITY]
    assert "retired" in next(f.fault for f in found if not f.holds)


def test_an_envelope_is_read_back_as_the_receipt_it_was_made_of() -> None:
    stored = SIGNER.sign(_receipt())

    assert from_envelope(envelope(stored)) == stored
    assert envelope(stored) == canonical.dumps(json.loads(envelope(stored)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line + b" ",
        lambda line: line.replace(b'"keyid"', b'"kid"'),
        lambda line: line.replace(b'"payload":"', b'"payload":"!'),
        lambda line: b'{"more":1,' + line[1:],
        lambda line: b"[]",
        lambda line: b"{",
        lambda line: b"\xff",
        lambda line: line[:12] + b"bnVsbA==" + line[line.index(b'","payloadType') :],
    ],
)
def test_what_is_no_envelope_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InputError):
        from_envelope(spoil(envelope(SIGNER.sign(_receipt()))))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(_JSON)
def test_the_fast_way_to_recognise_canonical_json_agrees_with_the_slow_one(value: Any) -> None:
    for text in (
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode(errors="ignore"),
    ):
        try:
            parsed = canonical.loads(text)
            expected = canonical.dumps(parsed) == text
        except InputError:
            continue
        assert canonical.is_canonical(parsed, text) is expected
    try:
        text = canonical.dumps(value)
    except InputError:
        return
    assert canonical.is_canonical(canonical.loads(text), text)
