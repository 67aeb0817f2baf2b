"""Errors as problem documents (RFC 9457): what happened, what state things are in, what to do."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from governor.errors import (
    ConflictError,
    DeniedError,
    GovernorError,
    InputError,
    OutageError,
    public_detail,
)

_LOG = logging.getLogger("ggen.ingress")
MEDIA_TYPE = "application/problem+json"
_FAMILIES: tuple[tuple[type[GovernorError], int], ...] = (
    (InputError, 422),
    (DeniedError, 403),
    (ConflictError, 409),
    (OutageError, 503),
)
STATUS: Mapping[str, int] = {
    "bad-signature": 400,
    "missing-signature": 400,
    "not-json": 400,
    "unauthorized": 401,
    "unknown-tenant": 404,
    "not-found": 404,
    "body-too-large": 413,
    "concurrency-exceeded": 429,
    "quota-exceeded": 429,
    "too-many-failures": 429,
    "tenant-fails-too-often": 429,
    "body-abandoned": 400,
}
"""Codes whose status is not their family's."""


_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "`urn:ggen:problem:` and a code"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "each fault of a request, by its field",
            "items": {
                "type": "object",
                "required": ["field", "fault"],
                "properties": {"field": {"type": "string"}, "fault": {"type": "string"}},
            },
        },
        "receipt": {"type": "object", "description": "of a refused event: its own receipt"},
    },
}
_SAID = {
    400: "Not signed, not strict JSON, or not whole",
    401: "The token is missing or wrong",
    403: "A rule said no",
    404: "There is no such thing",
    409: "The id came with another content",
    413: "The body is too large",
    422: "Fields out of bounds, or refused permanently",
    429: "A quota, or too many failures; see Retry-After",
    503: "Deliver again after Retry-After",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents of a door, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": _PROBLEM}}
    return {status: {"description": _SAID[status], "content": content} for status in statuses}


def signed_with(*headers: str) -> list[dict[str, Any]]:
    """The signature headers of a door, for the OpenAPI document."""
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "over the raw body; docs/interface.md says how",
        }
        for name in headers
    ]


class FieldsError(InputError):
    """A request with faults, each named."""

    def __init__(self, faults: list[dict[str, str]]) -> None:
        summary = "; ".join(f"{f['field']}: {f['fault']}" for f in faults[:10])
        super().__init__("invalid-body", f"the request is not valid: {summary}")
        self.args = (faults,)
        self.faults = faults


def status_of(error: GovernorError) -> int:
    """The HTTP status of an error."""
    of_family = next((status for family, status in _FAMILIES if isinstance(error, family)), 500)
    return STATUS.get(error.code, of_family)


def problem(
    status: int, code: str, detail: str, *, retry_after_s: int | None = None, **more: Any
) -> JSONResponse:
    """A problem document; members without a value are left out."""
    body = {
        "type": f"urn:ggen:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        **{name: value for name, value in more.items() if value is not None},
    }
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def of_error(error: GovernorError) -> JSONResponse:
    """The problem document of one of our errors."""
    status = status_of(error)
    if status >= 500:
        _LOG.warning("%s: %s", error.code, error.detail)
    retry_after_s = error.retry_after_s or (5 if status == 503 else None)
    faults = error.faults if isinstance(error, FieldsError) else None
    return problem(
        status, error.code, public_detail(error), retry_after_s=retry_after_s, errors=faults
    )


async def on_governor_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the error's own problem document."""
    if not isinstance(error, GovernorError):
        raise error
    return of_error(error)


async def on_http_error(_request: Request, error: Exception) -> JSONResponse:
    """What the router refuses: no such path, no such method."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    answer = problem(error.status_code, code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def on_validation_error(_request: Request, error: Exception) -> JSONResponse:
    """A path or query parameter out of bounds; its value is not echoed."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        {"field": ".".join(map(str, f["loc"][1:])), "fault": f["msg"]} for f in error.errors()
    ]
    return of_error(FieldsError(faults))


async def on_bug(_request: Request, _error: Exception) -> JSONResponse:
    """Anything else is our bug; the log has it, the caller learns nothing of it."""
    return problem(500, "internal-error", "this is a fault of ours; it was logged. Try again later")
