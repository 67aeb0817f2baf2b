"""Who may push: Pub/Sub's OIDC token, by certificates that a local server hands out."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from adapters.gcp.oidc import OidcPushers
from adapters.pushers import AnyPusher
from governor.errors import InputError, OutageError
from tests.support.relay import silent
from tests.support.waiting import until


def _deep() -> str:
    """What json.loads cannot go to the bottom of."""
    return base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")


AUDIENCE = "https://ingress.example/v1/pubsub/signals"
PUSHER = "pusher@project.iam.gserviceaccount.com"


class Signer:
    """A key, and the public key its tokens are known by."""

    def __init__(self, key_id: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_id = key_id
        public = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwk = {**public, "kid": key_id, "use": "sig", "alg": "RS256"}

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": PUSHER,
            "email_verified": True,
            "iat": now,
            "exp": now + 300,
            "sub": "1",
            **changes,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        return f"Bearer {jwt.encode(told, self._key, 'RS256', headers={'kid': self.key_id})}"


class Certificates:
    """Google's keys, as a local server hands them out."""

    def __init__(self, *known: Signer) -> None:
        self.known = list(known)
        self.status = 200
        self.body: bytes | None = None
        self.asked = 0
        self.url = ""

    def answer(self, _request: Request) -> Response:
        self.asked += 1
        keys = json.dumps({"keys": [signer.jwk for signer in self.known]}).encode()
        return Response(self.body or keys, self.status)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("key-1")


@pytest.fixture
def certificates(signer: Signer) -> Iterator[Certificates]:
    with HTTPServer(host="127.0.0.1") as server:
        known = Certificates(signer)
        known.url = server.url_for("/certs")
        server.expect_request("/certs").respond_with_handler(known.answer)
        yield known


@pytest.fixture
def pushers(certificates: Certificates) -> OidcPushers:
    return OidcPushers(AUDIENCE, PUSHER, certificates.url)


def test_the_subscriptions_own_pusher_is_let_in_and_asked_for_once(
    pushers: OidcPushers, certificates: Certificates, signer: Signer
) -> None:
    for _ in range(5):
        pushers.check(signer.token())

    assert certificates.asked == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "https://other.example"},
        {"aud": None},
        {"email": "other@project.iam.gserviceaccount.com"},
        {"email": None},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"exp": 1},
        {"iat": 2**40},
        {"exp": None},
    ],
    ids=str,
)
def test_a_token_that_says_anything_else_is_refused(
    pushers: OidcPushers, signer: Signer, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as refused:
        pushers.check(signer.token(**changes))
    assert refused.value.code == "unauthorized"
    assert PUSHER not in refused.value.detail


def _forged(signer: Signer) -> str:
    return Signer(signer.key_id).token()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "Basic abc",
        "Bearer " + "x" * 9000,
        f"Bearer eyJhbGciOiJSUzI1NiJ9.{_deep()}.e30",
        "Bearer eyJhbGciOiJub25lIn0.e30.",  # pragma: allowlist secret
        "Bearer W10.W10.W10",
        "Bearer é.é.é",
    ],
)
def test_what_is_no_token_is_refused(pushers: OidcPushers, header: str | None) -> None:
    with pytest.raises(InputError):
        pushers.check(header)


def test_another_key_under_the_same_name_is_refused(pushers: OidcPushers, signer: Signer) -> None:
    with pytest.raises(InputError):
        pushers.check(_forged(signer))


def test_a_key_nobody_has_heard_of_is_looked_for_and_no_more_than_once_a_minute(
    pushers: OidcPushers, certificates: Certificates, signer: Signer
) -> None:
    pushers.check(signer.token())
    stranger = Signer("key-2")
    for _ in range(5):
        with pytest.raises(InputError):
            pushers.check(stranger.token())

    assert certificates.asked == 1


def test_a_new_key_is_learnt_once_the_cooldown_is_over(
    certificates: Certificates, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.gcp.oidc._UNKNOWN_KEY_EVERY_S", 0.0)
    pushers = OidcPushers(AUDIENCE, PUSHER, certificates.url)
    pushers.check(signer.token())
    newer = Signer("key-2")
    certificates.known = [newer]

    pushers.check(newer.token())

    assert certificates.asked == 2


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}", b'{"a": 1}', b"x" * 100_000])
def test_without_certificates_a_push_is_to_come_again(
    pushers: OidcPushers, certificates: Certificates, signer: Signer, body: bytes
) -> None:
    certificates.body = body
    with pytest.raises(OutageError):
        pushers.check(signer.token())


def test_who_waits_for_certificates_that_do_not_come_is_not_kept_in_turn(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.gcp.oidc._FETCH_S", 0.5)
    with silent() as host:
        pushers = OidcPushers(AUDIENCE, PUSHER, f"http://{host}/certs")
        refused: list[OutageError] = []

        def push() -> None:
            try:
                pushers.check(signer.token())
            except OutageError as error:
                refused.append(error)

        threads = [threading.Thread(target=push) for _ in range(20)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(refused) == 20
        assert time.monotonic() - began < 5  # one after the other: 10 s


def test_keys_are_used_further_while_none_can_be_fetched(
    certificates: Certificates, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.gcp.oidc._KEPT_S", 0.001)
    pushers = OidcPushers(AUDIENCE, PUSHER, certificates.url)
    pushers.check(signer.token())
    certificates.status = 503
    until(pushers._keys.jwk_set_cache.is_expired)  # type: ignore[union-attr]

    pushers.check(signer.token())
    pushers.check(signer.token())

    assert certificates.asked == 2  # asked again after a minute, not at once


def test_keys_that_could_not_be_fetched_are_asked_for_again_soon(
    certificates: Certificates, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.gcp.oidc._KEPT_S", 0.1)
    monkeypatch.setattr("adapters.gcp.oidc._UNKNOWN_KEY_EVERY_S", 0.01)
    pushers = OidcPushers(AUDIENCE, PUSHER, certificates.url)
    pushers.check(signer.token())
    until(pushers._keys.jwk_set_cache.is_expired)  # type: ignore[union-attr]
    certificates.status = 503
    pushers.check(signer.token())
    certificates.status, certificates.known = 200, [Signer("key-2")]

    def is_withdrawn() -> bool:
        try:
            pushers.check(signer.token())
        except InputError:
            return True
        return False

    until(is_withdrawn)


def test_an_emulator_is_let_in_as_it_is() -> None:
    AnyPusher().check(None)
