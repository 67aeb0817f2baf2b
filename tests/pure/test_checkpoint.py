import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import InputError
from ledger import checkpoint, merkle
from ledger.checkpoint import Checkpoint, open_checkpoint, open_note, sign, vkey
from ledger.keys import ALWAYS, KeyRing, TrustedKey, load_public_key, parse_ring
from ledger.receipt import Signer

FIRST, SECOND = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
LOG = "ledger.example/acme"
TREE = Checkpoint(LOG, 3, merkle.root([b"a", b"b", b"c"]))
RING = KeyRing(
    origin="ledger.example",
    keys=tuple(TrustedKey.of(signer.public_key, ALWAYS) for signer in (FIRST, SECOND)),
)


def test_a_note_is_opened_by_the_key_that_signed_it() -> None:
    assert open_note(sign(TREE, FIRST), vkey(LOG, FIRST.public_key)) == TREE.text()
    with pytest.raises(InputError, match="no signature"):
        open_note(sign(TREE, FIRST), vkey(LOG, SECOND.public_key))
    with pytest.raises(InputError, match="no signature"):
        open_note(sign(TREE, FIRST), vkey("ledger.example/other", FIRST.public_key))


def test_lines_of_keys_nobody_knows_are_passed_over() -> None:
    elsewhere = Checkpoint("elsewhere.example/log", 1, TREE.root)
    strangers = sign(elsewhere, SECOND).splitlines()[-1] + "\n"

    assert open_note(sign(TREE, FIRST) + strangers, vkey(LOG, FIRST.public_key)) == TREE.text()
    with pytest.raises(InputError, match="no signature"):
        open_note(sign(elsewhere, SECOND), vkey(LOG, FIRST.public_key))


def test_a_line_in_our_name_that_does_not_fit_spoils_the_note() -> None:
    forged = sign(Checkpoint(LOG, 4, TREE.root), FIRST).splitlines()[-1] + "\n"

    with pytest.raises(InputError, match="does not fit"):
        open_note(sign(TREE, FIRST) + forged, vkey(LOG, FIRST.public_key))


@given(st.integers(0, len(sign(TREE, FIRST)) - 1), st.integers(1, 127))
def test_a_note_with_any_character_changed_is_refused(at: int, change: int) -> None:
    note = sign(TREE, FIRST)
    spoilt = note[:at] + chr(ord(note[at]) ^ change) + note[at + 1 :]

    with pytest.raises(InputError):
        open_note(spoilt, vkey(LOG, FIRST.public_key))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "a\n",
        "o\n01\nAAAA\n",
        "o\n-1\nAAAA\n",
        "o\n1\nAAAA\n",
        "\n1\n" + "A" * 43 + "=\n",
        f"o\n1\n{base64.b64encode(bytes(32)).decode()}\nmore\n",
        f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(InputError):
        checkpoint.parse(body)


def test_a_checkpoint_says_by_which_trusted_key_it_was_signed() -> None:
    assert open_checkpoint(sign(TREE, FIRST), LOG, RING) == (TREE, RING.keys[0])
    assert open_checkpoint(sign(TREE, SECOND), LOG, RING) == (TREE, RING.keys[1])
    with pytest.raises(InputError, match="is of"):
        open_checkpoint(sign(TREE, FIRST), "ledger.example/other", RING)
    with pytest.raises(InputError, match="not signed by any"):
        open_checkpoint(sign(TREE, FIRST), LOG, RING.evolve(keys=RING.keys[1:]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key.replace(LOG, "x"),
        lambda key: key.replace("+", " "),
        lambda key: key[:-4],
        lambda key: "+" + key,
        lambda key: key.rsplit("+", 1)[0] + "+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
    ],
)
def test_what_is_no_verifier_key_is_refused(spoil: object) -> None:
    with pytest.raises(InputError):
        open_note(sign(TREE, FIRST), spoil(vkey(LOG, FIRST.public_key)))  # type: ignore[operator]


P, D = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)


def _doubled(x: int, y: int) -> tuple[int, int]:
    slope = D * x * x * y * y
    return (
        2 * x * y * pow(1 + slope, -1, P) % P,
        (y * y + x * x) * pow(1 - slope, -1, P) % P,
    )


def _low_order_keys() -> list[bytes]:
    """Every encoding of the points whose eighth multiple is the neutral element."""
    root_of_minus_one = pow(2, (P - 1) // 4, P)
    found = []
    order_8 = int.from_bytes(
        # pragma: allowlist nextline secret
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        "little",
    )
    for y in (0, 1, P - 1, order_8, P - order_8):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * root_of_minus_one % P
        assert (x * x - square) % P == 0
        point = (x, y)
        for _ in range(3):
            point = _doubled(*point)
        assert point == (0, 1)
        found += [encoded for encoded in (y, y + P) if encoded < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in found for sign in (0, 1)]


@pytest.mark.parametrize("raw", _low_order_keys(), ids=bytes.hex)
def test_a_key_under_which_anybody_could_sign_is_refused(raw: bytes) -> None:
    with pytest.raises(InputError, match="low order"):
        load_public_key(raw)


def test_a_second_encoding_of_a_key_and_a_short_one_are_refused() -> None:
    with pytest.raises(InputError, match="not canonical"):
        load_public_key((P + 5).to_bytes(32, "little"))
    with pytest.raises(InputError, match="32 bytes"):
        load_public_key(bytes(31))


def test_a_key_file_is_read_strictly() -> None:
    text = RING.model_dump_json()
    assert parse_ring(text) == RING

    for spoilt in (
        "{}",
        "[",
        text.replace(RING.keys[0].public_key, RING.keys[1].public_key),
        text.replace(RING.keys[0].public_key, base64.b64encode(bytes(32)).decode()),
        text.replace(RING.keys[0].public_key, "?"),
        text.replace("1970", "then"),
    ):
        with pytest.raises(InputError):
            parse_ring(spoilt)
