import inspect
import json
import pickle

import pytest
from kombu.utils.json import dumps, loads

from cli.demo.story import UnexpectedError
from governor import errors
from ingress.problems import FieldsError

FAMILIES = [
    e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.GovernorError)
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda e: e.__name__)
def test_every_error_survives_the_queue_whole(family: type[errors.GovernorError]) -> None:
    error = family("some-code", "what happened", 7)

    again = pickle.loads(pickle.dumps(error))

    assert (again.code, again.detail, again.retry_after_s) == ("some-code", "what happened", 7)
    assert str(again) == "what happened"
    assert family(*loads(dumps(error.args))).detail == "what happened"


@pytest.mark.parametrize("kind", [errors.RecoverableError, errors.UnrecoverableError])
def test_action_errors_survive_the_queue(kind: type[errors.ActionError]) -> None:
    again = pickle.loads(pickle.dumps(kind("CODE", "why")))

    assert (again.code, str(again)) == ("CODE", "why")
    assert str(kind("CODE")) == "CODE"


def test_an_error_with_fields_survives_too() -> None:
    again = pickle.loads(pickle.dumps(FieldsError([{"field": "a", "fault": "b"}])))

    assert again.faults == [{"field": "a", "fault": "b"}]
    assert json.dumps(again.faults)


def test_the_families_have_the_exit_codes_of_the_table() -> None:
    codes = {e.__name__: e.exit_code for e in FAMILIES}

    assert codes == {
        "GovernorError": 1,
        "InputError": 2,
        "DeniedError": 3,
        "RetainedError": 3,
        "ConflictError": 4,
        "OutageError": 5,
        "PolicyError": 5,
        "UnreadableError": 5,
    }


def test_no_library_code_can_swallow_the_deadline_by_catching_exceptions() -> None:
    assert not issubclass(errors.ActionDeadline, Exception)
    assert issubclass(UnexpectedError, Exception)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.OutageError("down", "Valkey does not answer"), "Valkey does not answer"),
        (errors.OutageError("secret-unreadable", "cannot use /srv/place"), "the server cannot use"),
        (KeyError("/srv/place"), r"a fault of ours \(KeyError\)"),
    ],
)
def test_outsiders_read_of_no_place_on_the_server(error: Exception, told: str) -> None:
    import re

    assert re.match(told, errors.public_detail(error))
    assert "/srv/place" not in errors.public_detail(error)
