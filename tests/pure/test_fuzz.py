"""Each parser of strangers' bytes, some hundred broken inputs; ``make audit`` goes on for minutes."""

import pytest

from governor.errors import InputError
from tests.fuzz.mutate import fuzz
from tests.fuzz.targets import Target, targets


@pytest.mark.parametrize("name", targets())
def test_a_parser_raises_only_what_it_declares(name: str) -> None:
    assert list(fuzz(targets()[name], 20261127, times=300, seconds=2)) == []


def test_the_seeds_are_valid() -> None:
    """A seed that is refused at its first byte would leave most of its parser untried."""
    refused = {"policy headers", "webhook headers", "credentials", "answer of an action's URL"}
    for name in targets().keys() - refused:
        for seed in targets()[name].seeds:
            targets()[name].parse(seed)


def test_an_error_that_is_not_declared_is_found() -> None:
    bad = Target(lambda data: data.decode("ascii"), [b"plain"], (InputError,))

    assert any("UnicodeDecodeError" in each.error for each in fuzz(bad, 1, times=200))


def test_a_key_id_that_is_no_text_is_an_error_of_the_envelope() -> None:
    (seed, *_) = targets()["receipt envelope"].seeds
    at = seed.index(b'"keyid":"') + len(b'"keyid":"')

    with pytest.raises(InputError, match="not a DSSE envelope"):
        targets()["receipt envelope"].parse(seed[:at] + b"\\ud800" + seed[at:])
