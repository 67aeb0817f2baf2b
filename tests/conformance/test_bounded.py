"""What keeps Valkey from answering is an outage, in whatever words its client says so."""

import io

import pytest

from adapters.valkey.connection import bounded
from governor.errors import OutageError


def test_a_buffer_that_a_timeout_closed_is_an_outage() -> None:
    buffer = io.BytesIO()
    buffer.close()

    with pytest.raises(OutageError, match="does not answer in time"):
        bounded(lambda: buffer.seek(0))


def test_a_value_of_ours_that_is_wrong_is_none() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        bounded(lambda: int("no number"))
