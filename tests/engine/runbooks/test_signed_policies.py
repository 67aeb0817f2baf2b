"""Policies that must be signed: by the right key, over what is stored."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from cli.policies import change
from governor.errors import InputError
from ledger.checkpoint import sign_text, vkey
from ports import Ports
from tasks.governors import policies
from tasks.runbooks.upgrade import back, comparison
from tests.support import cancel, upgrades
from tests.support.upgrades import PLAN, SYSTEM, receipts, upgrade, version

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NAME = "policies.example"


def _signed(document: bytes, key: Ed25519PrivateKey = KEY, name: str = NAME) -> str:
    _, text = policies.parse(document)
    return sign_text(f"{text.decode()}\n", name, key)


@pytest.fixture
def strict(ports: Ports) -> Ports:
    keys = [vkey("former.example", OTHER.public_key()), vkey(NAME, KEY.public_key())]
    return dataclasses.replace(ports, policy_keys=keys)


def test_a_signed_policy_is_taken_and_its_bytes_may_be_others(strict: Ports) -> None:
    document = version("1.1.0")

    done = comparison.register(strict, document.replace(b", ", b" ,\n"), _signed(document))

    assert done.is_new
    assert comparison.register(strict, document, _signed(document)).digest == done.digest
    both = _signed(document, OTHER, "stranger.example") + _signed(document)
    comparison.register(strict, document, both)  # of strangers' signatures nothing is known


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "nonsense",
        _signed(version("1.2.0")),
        _signed(version("1.1.0"), OTHER),
        _signed(version("1.1.0"), KEY, "another.example"),
        _signed(version("1.1.0"))[:-1],
    ],
)
def test_an_unsigned_policy_leaves_a_receipt_and_nothing_else(
    strict: Ports, signature: str
) -> None:
    with pytest.raises(InputError) as refused:
        comparison.register(strict, version("1.1.0"), signature)

    assert refused.value.code == "policy-signature"
    (failed,) = receipts(strict, "policy_validation_failed", SYSTEM)
    assert failed["error_code"] == "policy-signature"
    assert policies.versions(strict, *PLAN) == ["1.0.0"]


def test_a_way_back_has_the_signature_of_the_version_it_returns_to(strict: Ports) -> None:
    first, strict = version("1.0.0"), upgrades.later(strict)
    comparison.register(strict, first, _signed(first))
    policies.register(strict, version("1.1.0"), _signed(version("1.1.0")))
    assert (
        upgrade(strict, version("1.1.0"), signature=_signed(version("1.1.0"))).state == "complete"
    )

    way_back = back.register(strict, *PLAN, "1.0.0")
    run = upgrades.begin_registered(strict, way_back)

    assert cancel.to_the_end(strict, run.run_id).state == "complete"
    # What comes by a door has to be signed, whatever it says it is.
    text = policies.rolling_back(policies.text_of(strict, *PLAN, "1.1.0"), "9.0.0")
    with pytest.raises(InputError, match="no signature"):
        comparison.register(strict, text)


def test_what_was_registered_without_keys_does_not_come_into_force_with_them(
    ports: Ports, strict: Ports
) -> None:
    policies.register(ports, version("1.1.0"))  # by a process that lacks the setting
    strict = upgrades.later(strict)
    run = upgrades.begin_registered(strict, policies.load(ports, *PLAN, "1.1.0"))

    ended = cancel.to_the_end(strict, run.run_id)

    assert (ended.state, ended.error_code) == ("refused", "policy-signature")
    assert policies.in_force(strict, *PLAN).policy_version == "1.0.0"


def test_a_signature_over_more_than_the_policy_is_none(strict: Ports) -> None:
    _, text = policies.parse(version("1.1.0"))
    more = f"{text.decode()}\n\nand more\n"

    with pytest.raises(InputError, match="fits none"):
        comparison.register(strict, version("1.1.0"), f"\nand more\n\n{sign_text(more, NAME, KEY)}")


def test_the_command_signs_what_is_verified(strict: Ports, tmp_path: Path) -> None:
    file, key = tmp_path / "p.json", tmp_path / "key.pem"
    file.write_bytes(version("1.1.0"))
    key.write_bytes(
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )

    value, _ = change.sign(file, key, NAME)

    assert value["verifier_key"] == strict.policy_keys[1]
    comparison.register(strict, file.read_bytes(), (tmp_path / "p.json.sig").read_text())
    for name in ("with space", "with+plus", ""):
        with pytest.raises(InputError):
            change.sign(file, key, name)
    with pytest.raises(InputError, match="no Ed25519 key"):
        change.sign(file, file, NAME)
