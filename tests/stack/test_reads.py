"""Reads, health, metrics, and what the OpenAPI document promises."""

import json
from urllib.parse import quote

import httpx
import pytest
import schemathesis
import schemathesis.core
from hypothesis import HealthCheck, given, settings

from ingress.signature import sign
from tests.stack.conftest import Stack


@pytest.fixture(scope="module", autouse=True)
def _account(stack: Stack) -> None:
    stack.subscribe("reads")
    for n in range(5):
        stack.signal("reads", {"signal_id": f"r{n}", "type": "demo.succeed"})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tenants/reads",
        "/v1/tenants/reads/receipts",
        "/v1/runs/run-1",
        "/v1/tenants/reads/actions/a",
    ],
)
def test_reads_need_the_token(stack: Stack, path: str) -> None:
    with stack.http() as http:
        answers = [http.get(path), http.get(path, headers={"Authorization": "Bearer wrong"})]

    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_not_there_is_404(stack: Stack) -> None:
    token = {"Authorization": f"Bearer {stack.secrets.api_token()}"}
    with stack.http() as http:
        for path in (
            "/v1/tenants/none",
            "/v1/runs/none",
            "/v1/tenants/reads/actions/none",
            "/none",
        ):
            answer = http.get(path, headers=token)
            assert (answer.status_code, answer.headers["content-type"]) == (
                404,
                "application/problem+json",
            )


def test_receipts_are_paged_newest_first(stack: Stack) -> None:
    whole = stack.receipts("reads", limit=1000)
    seen, cursor = [], None
    while True:
        page = stack.read(
            "/v1/tenants/reads/receipts", limit=2, **({"cursor": cursor} if cursor else {})
        )
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen[-len(whole) :] == whole
    assert [r["timestamp"] for r in whole] == sorted((r["timestamp"] for r in whole), reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"cursor": "rubbish"},
        {"cursor": "WzEsMl0="},
        {"operation": "x"},
    ],
)
def test_a_query_out_of_bounds_is_422(stack: Stack, query: dict[str, str]) -> None:
    token = {"Authorization": f"Bearer {stack.secrets.api_token()}"}
    with stack.http() as http:
        answer = http.get("/v1/tenants/reads/receipts", params=query, headers=token)

    assert answer.status_code == 422


def test_one_receipt_is_shown_with_its_signature(stack: Stack) -> None:
    receipt = stack.receipts("reads")[0]

    stored = stack.read(f"/v1/tenants/reads/receipts/{receipt['receipt_id']}")

    assert {"payload", "signature", "key_id", "sha256"} <= set(stored)


def test_alive_ready_and_measured(stack: Stack) -> None:
    with stack.http() as http:
        assert http.get("/healthz").json() == {"status": "alive"}
        told = http.get("/readyz").json()
        assert (told["ready"], told["missing"], told["mode"]) == (True, {}, "normal")
        assert (told["failed_checks"], told["spooled"], told["error_code"]) == (0, 0, "")
        assert 0 < told["lease_s"] <= 33
        metrics = http.get("/metrics").text

    assert "ggen_lease_seconds" in metrics
    assert "ggen_unsealed_ledgers" in metrics
    assert 'ggen_objective_events_total{objective="deploy_sku_receipt"}' in metrics
    assert "reads" not in metrics  # no tenant is named without a token


def test_no_input_the_document_allows_or_forbids_makes_it_fail(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.http_port}"
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    failed: list[str] = []
    calls = 0

    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=30, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def fuzz(case: schemathesis.Case) -> None:
            nonlocal calls
            calls += 1
            answer = _send(stack, url, case)
            if answer.status_code == 500:
                failed.append(f"{case.method} {case.formatted_path} {case.body!r}")

        fuzz()

    assert calls > 100
    assert failed == []


def _send(stack: Stack, url: str, case: schemathesis.Case) -> httpx.Response:
    """A generated call, signed and authorised, so that it gets past the door."""
    body = (
        b"" if isinstance(case.body, schemathesis.core.NotSet) else json.dumps(case.body).encode()
    )
    account = (case.path_parameters or {}).get("account_id", "")
    headers = {
        "Authorization": f"Bearer {stack.secrets.push_token() if 'pubsub' in case.path else stack.secrets.api_token()}",
        "X-Entitlement-Signature": sign(body, stack.secrets.webhook_secrets()[0]),
        "X-Signature": sign(body, stack.secrets.tenant_key(str(account))),
    }
    target = url + quote(case.formatted_path, safe="/%")
    with httpx.Client(trust_env=False, timeout=20) as http:
        return http.request(
            case.method, target, params=dict(case.query or {}), content=body, headers=headers
        )
