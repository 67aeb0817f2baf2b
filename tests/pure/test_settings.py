import itertools
import os
from collections.abc import Iterator

import pytest

from config import settings
from governor.errors import InputError


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [n for n in os.environ if n.startswith("GGEN_")]:
        monkeypatch.delenv(name)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def test_an_unknown_setting_stops_the_start_and_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GGEN_HTTP_PROT", "1")

    with pytest.raises(InputError, match=r"no setting GGEN_HTTP_PROT.*GGEN_HTTP_PORT"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GGEN_HTTP_PORT", "0"),
        ("GGEN_HTTP_PORT", "many"),
        ("GGEN_DEFAULT_REGION", "No Where"),
        ("GGEN_ACTIONS_CONCURRENCY", "0"),
        ("GGEN_LEASE_S", "-1"),
    ],
)
def test_a_value_out_of_bounds_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=name) as refused:
        settings.load()

    assert "\n" not in str(refused.value)


def test_a_child_sees_exactly_its_parents_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGEN_HTTP_PORT", "8181")
    monkeypatch.setenv("GGEN_STATE_DIR", "somewhere")
    ours = settings.load()
    monkeypatch.setenv("GGEN_LEASE_S", "5")

    variables = settings.environment(ours)

    given = {k: v for k, v in variables.items() if k.startswith("GGEN_")}
    assert given == {"GGEN_HTTP_PORT": "8181", "GGEN_STATE_DIR": str(ours.state_dir)}
    assert ours.state_dir.is_absolute()


def test_every_setting_says_what_it_is() -> None:
    import ast
    import inspect

    body = ast.parse(inspect.getsource(settings.Settings)).body[0].body  # type: ignore[attr-defined]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{field.target.id} has no word"  # type: ignore[union-attr]
