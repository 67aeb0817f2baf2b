"""Documents on Firestore: one commit per call, each write with its precondition, no transaction.

A document is stored as four fields: ``data`` holds what can be asked for and what people look at
(scalars), ``json`` the rest as text, so that any JSON comes back as it was; ``created`` is the
server's time of the request, by which the documents of a ledger are found. Their order is that of
``create_time``, which Firestore assigns in commit order; docs/decisions/0008-google-cloud.md.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from google.api_core import exceptions as answers
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from google.cloud.firestore_v1.types import Document as Stored
from google.protobuf.json_format import MessageToDict

from adapters.gcp.calls import NOT_DONE, PerProcess, Service, bounded, channel, outage
from adapters.rules import check_field, check_path, checked, is_field, order_of
from governor.errors import ConflictError, InputError
from ports.documents import (
    Create,
    Delete,
    Document,
    Json,
    Landed,
    Query,
    Update,
    Where,
    Write,
    one_by_one,
)

_WHO = Service("Firestore", "documents-unavailable")
_SCAN_S, _COUNT_S = 6.0, 20.0
"""Bound of a scan, which is on no action's path; a page of 1,000 takes a second or two."""

_COMMIT_TAKES = 5
"""How long after its request a commit may still land: so many times as long as it is waited for."""

_CLOCKS = timedelta(seconds=1)
"""How far the time of a request may lie after that of its commit, by another server's clock."""

_PAGE = 1000
_NO_DATABASE = re.compile(r"database .*does not exist", re.IGNORECASE)
_REVISION = re.compile(r"(\d{1,12})\.(\d{9})")
_KINDS = (
    (bool, "boolean_value"),
    (int, "integer_value"),
    (float, "double_value"),
    (str, "string_value"),
    (datetime, "timestamp_value"),
)
_SCALARS = ("null_value", *(kind for each, kind in _KINDS if each is not datetime))
_OPERATORS = {"==": "EQUAL", "in": "IN", "<=": "LESS_THAN_OR_EQUAL", ">=": "GREATER_THAN_OR_EQUAL"}


class FirestoreDocuments:
    """See ``ports.documents.Documents`` for what it promises."""

    def __init__(
        self,
        project: str,
        database: str = "(default)",
        *,
        emulator_host: str = "",
        timeout_s: float = 1.0,
    ) -> None:
        self._database = f"projects/{project}/databases/{database}"
        self._root = f"{self._database}/documents"
        self._timeout_s = timeout_s
        self._overlap = timedelta(seconds=max(_COMMIT_TAKES, _COMMIT_TAKES * timeout_s))
        # The emulator believes anybody; this name is above its security rules.
        self._metadata = (("authorization", "Bearer owner"),) if emulator_host else ()
        self._client = PerProcess(
            lambda: FirestoreClient(
                transport=FirestoreGrpcTransport(
                    channel=channel(FirestoreGrpcTransport, emulator_host)
                )
            )
        )

    def get(self, path: str) -> Document | None:
        check_path(path)
        request, client = {"name": f"{self._root}/{path}"}, self._client.get()
        try:
            found = bounded(
                lambda left_s: client.get_document(
                    request=request, timeout=left_s, retry=None, metadata=self._metadata
                ),
                self._timeout_s,
                who=_WHO,
            )
        except answers.NotFound as error:
            _check_database(error)
            return None
        except answers.ClientError as error:
            raise outage(_WHO, error) from error
        return self._document(Stored.pb(found))

    def commit(self, writes: Sequence[Write]) -> list[str]:
        checked(writes)
        request = {"database": self._database, "writes": [self._write(each) for each in writes]}
        client, by_s = self._client.get(), _last_moment(writes)

        def commit(left_s: float) -> Any:
            if time.monotonic() > by_s:  # right before the call: a process may have stood still
                raise ConflictError("too-late", f"{writes[0].path}: too late; nothing was written")
            return client.commit(
                request=request, timeout=left_s, retry=None, metadata=self._metadata
            )

        try:
            done = bounded(commit, self._timeout_s, who=_WHO, after=NOT_DONE)
        except answers.AlreadyExists as error:
            raise _conflict("already-exists", error) from error
        except (answers.FailedPrecondition, answers.NotFound) as error:
            _check_database(error)
            raise _conflict("stale-revision", error) from error
        except answers.InvalidArgument as error:
            raise InputError("not-a-document", f"Firestore refused it: {error.message}") from error
        times = [result.update_time for result in type(done).pb(done).write_results]
        return [
            "" if isinstance(write, Delete) else _revision(at)
            for write, at in zip(writes, times, strict=True)
        ]

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        return one_by_one(self.commit, commits)

    def scan(self, query: Query) -> list[Document]:
        check_path(query.collection)
        order_by, after = order_of(query.where, query.order_by), query.after
        filters = [_filter(f"data.{check_field(w.field)}", w.op, w.value) for w in query.where]
        if any(each.op == "in" and not each.value for each in query.where):
            return []  # Firestore refuses to look for none of nothing
        cursor = [{"string_value": after[0]}] if after and order_by else []
        if after and not after[1].endswith("/"):  # a collection's own path lies before them all
            cursor.append({"reference_value": f"{self._root}/{after[1]}"})
        found = self._query(
            query.collection,
            filters,
            [f"data.{order_by}"] if order_by else [],
            cursor,
            query.at_most,
            group=query.group,
            descending=query.descending,
        )
        return [self._document(stored) for stored, _ in found]

    def count(self, collection: str, where: Sequence[Where]) -> int:
        check_path(collection)
        parent, _, name = collection.rpartition("/")
        query: dict[str, Any] = {"from_": [{"collection_id": name}]}
        if where:
            filters = [_filter(f"data.{check_field(w.field)}", w.op, w.value) for w in where]
            query["where"] = {"composite_filter": {"op": "AND", "filters": filters}}
        request = {
            "parent": f"{self._root}/{parent}" if parent else self._root,
            "structured_aggregation_query": {
                "structured_query": query,
                "aggregations": [{"alias": "n", "count": {}}],
            },
        }
        client = self._client.get()

        def ask(left_s: float) -> int:
            rows = client.run_aggregation_query(
                request=request, timeout=left_s, retry=None, metadata=self._metadata
            )
            return sum(row.result.aggregate_fields["n"].integer_value for row in rows if row.result)

        try:
            return bounded(ask, _COUNT_S, who=_WHO)
        except answers.ClientError as error:
            raise outage(_WHO, error) from error

    def created(
        self, collection: str, *, after: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        """Found by when they were asked for, in the order of their commits.

        What was asked for in the last seconds before ``after`` may have been committed after it,
        and is looked at again. Every returned document existed when the first page was read.
        Documents committed later come after the returned ones.
        """
        check_path(collection)
        found: list[Document] = []
        filters = [_filter("created", ">=", after[0] - self._overlap)] if after else []
        cursor: list[dict[str, Any]] = []
        seen_at: datetime | None = None
        while True:
            page = self._query(collection, filters, ["created"], cursor, _PAGE)
            if not page:
                until = seen_at
            else:
                seen_at = seen_at or page[0][1]
                found += [self._document(stored) for stored, _ in page]
                last = page[-1][0]
                asked_at = _instant(last.fields["created"].timestamp_value)
                until = seen_at if len(page) < _PAGE else min(seen_at, asked_at - _CLOCKS)
                cursor = [{"timestamp_value": asked_at}, {"reference_value": last.name}]
            settled = sorted(
                (
                    d
                    for d in found
                    if (until is None or d.created_at <= until) and _is_after(d, after)
                ),
                key=_position,
            )
            if len(page) < _PAGE or len(settled) >= limit:
                return settled[: max(1, min(limit, 1000))]

    @property
    def late_s(self) -> float:
        return 0.0

    def close(self) -> None:
        if client := self._client.take():
            client.transport.close()

    def _write(self, write: Write) -> dict[str, Any]:
        name = f"{self._root}/{write.path}"
        match write:
            case Create(_, data):
                stamp = {"field_path": "created", "set_to_server_value": "REQUEST_TIME"}
                return {
                    "update": {"name": name, "fields": _fields(data)},
                    "current_document": {"exists": False},
                    "update_transforms": [stamp],
                }
            case Update(_, data, revision):
                return {
                    "update": {"name": name, "fields": _fields(data)},
                    "update_mask": {"field_paths": ["data", "json", "nonce"]},
                    "current_document": {"update_time": _time_of(revision)},
                }
            case Delete(_, revision):
                return {"delete": name, "current_document": {"update_time": _time_of(revision)}}

    def _query(
        self,
        collection: str,
        filters: list[dict[str, Any]],
        order: list[str],
        cursor: list[dict[str, Any]],
        limit: int,
        *,
        group: bool = False,
        descending: bool = False,
    ) -> list[tuple[Any, datetime]]:
        """Stored documents, each with the moment as of which it was read."""
        parent, _, name = collection.rpartition("/")
        direction = "DESCENDING" if descending else "ASCENDING"
        query: dict[str, Any] = {
            "from_": [{"collection_id": name, "all_descendants": group}],
            "order_by": [
                {"field": {"field_path": each}, "direction": direction}
                for each in (*order, "__name__")
            ],
            "limit": limit,
        }
        if filters:
            query["where"] = {"composite_filter": {"op": "AND", "filters": filters}}
        if cursor:
            query["start_at"] = {"values": cursor, "before": False}
        request = {
            "parent": f"{self._root}/{parent}" if parent and not group else self._root,
            "structured_query": query,
        }

        client = self._client.get()

        def ask(left_s: float) -> list[tuple[Any, datetime]]:
            rows = client.run_query(
                request=request, timeout=left_s, retry=None, metadata=self._metadata
            )
            return [
                (row.document, _instant(row.read_time))
                for row in (type(each).pb(each) for each in rows)
                if row.HasField("document")
            ]

        try:
            return bounded(ask, _SCAN_S, who=_WHO)
        except answers.InvalidArgument as error:
            raise InputError("bad-query", f"Firestore refused it: {error.message}") from error
        except answers.ClientError as error:  # an index is missing; the message names it
            raise outage(_WHO, error) from error

    def _document(self, stored: Any) -> Document:
        return Document(
            stored.name.removeprefix(f"{self._root}/"),
            _data(stored.fields),
            _revision(stored.update_time),
            _instant(stored.create_time),
        )


def _fields(data: Json) -> dict[str, Any]:
    plain = {name: _value(value) for name, value in data.items() if _is_plain(name, value)}
    rest = {name: value for name, value in data.items() if name not in plain}
    return {
        "data": {"map_value": {"fields": plain}},
        "json": {"string_value": json.dumps(rest, ensure_ascii=False, separators=(",", ":"))},
        # Without it, an update that changes nothing keeps its revision and fences no writer.
        "nonce": {"string_value": secrets.token_hex(8)},
    }


def _is_plain(name: str, value: object) -> bool:
    is_number = isinstance(value, int) and -(2**63) <= value < 2**63
    return is_field(name) and (is_number or value is None or isinstance(value, (str, float)))


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, (list, tuple)):
        return {"array_value": {"values": [_value(each) for each in value]}}
    if value is None:
        return {"null_value": 0}
    return {next(kind for each, kind in _KINDS if isinstance(value, each)): value}


def _data(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A document's data; of one that cannot be parsed, its text under an empty name."""
    try:
        rest = json.loads(fields["json"].string_value if "json" in fields else "")
        plain = fields["data"].map_value.fields if "data" in fields else {}
        return {**{name: _scalar(plain[name]) for name in plain}, **rest}
    except (ValueError, TypeError, RecursionError):
        found = {name: MessageToDict(fields[name]) for name in sorted(fields)}
        return {"": json.dumps(found, sort_keys=True)}


def _scalar(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    if kind not in _SCALARS:
        raise TypeError(f"no document of ours has a {kind}")
    return None if kind == "null_value" else getattr(value, kind)


def _filter(path: str, op: str, value: object) -> dict[str, Any]:
    wanted = {"field": {"field_path": path}, "op": _OPERATORS[op], "value": _value(value)}
    return {"field_filter": wanted}


def _revision(at: Any) -> str:
    return f"{at.seconds}.{at.nanos:09d}"


def _time_of(revision: str) -> dict[str, int]:
    if not (parts := _REVISION.fullmatch(revision)):
        raise ConflictError("stale-revision", f"{revision[:64]!r} is no revision of this store")
    return {"seconds": int(parts[1]), "nanos": int(parts[2])}


def _instant(at: Any) -> datetime:
    return at.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def _position(document: Document) -> tuple[datetime, str]:
    return document.created_at, document.path


def _is_after(document: Document, after: tuple[datetime, str] | None) -> bool:
    return after is None or _position(document) > after


def _check_database(error: answers.GoogleAPICallError) -> None:
    """A database that is not there is no document that is not there."""
    if _NO_DATABASE.search(str(error.message)):
        raise outage(_WHO, error) from error


def _last_moment(writes: Sequence[Write]) -> float:
    """The moment after which one of them is not to be written."""
    by_s = [each.by_s for each in writes if isinstance(each, Create) and each.by_s is not None]
    return min(by_s, default=inf)


def _conflict(code: str, error: answers.GoogleAPICallError) -> ConflictError:
    what = code.replace("-", " ")
    return ConflictError(code, f"{what}; nothing was written ({error.message[:200]})")
