"""Which queries Firestore would refuse for want of an index: its emulator refuses none.

Every collection has both orders of every field, unless the file says otherwise of that field;
collection groups, and filters with an order by another field, have what the file gives them.
https://firebase.google.com/docs/firestore/query-data/index-overview
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.gcp.firestore import FirestoreDocuments
from ports.documents import Where

_FILE = Path(__file__).parents[2] / "config" / "firestore.indexes.json"
_KNOWN: dict[str, Any] = json.loads(_FILE.read_text())


class IndexedDocuments(FirestoreDocuments):
    """Documents on the emulator that refuse what Firestore would."""

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
    ) -> list[tuple[Any, Any]]:
        fields = [each["field_filter"]["field"]["field_path"] for each in filters]
        name, turn = collection.rpartition("/")[2], "DESCENDING" if descending else "ASCENDING"
        assert _is_served(name, group, [f for f in fields if f not in order], order, turn), (
            f"no index for {name} (group: {group}): {fields}, by {order} {turn}"
        )
        return super()._query(
            collection, filters, order, cursor, limit, group=group, descending=descending
        )

    def count(self, collection: str, where: Sequence[Where]) -> int:
        fields = [f"data.{each.field}" for each in where]
        name = collection.rpartition("/")[2]
        assert _is_served(name, False, fields, [], "ASCENDING"), (
            f"no index to count {name}: {fields}"
        )
        return super().count(collection, where)


def _is_served(
    name: str, group: bool, equal: Sequence[str], order: Sequence[str], turn: str
) -> bool:
    scope = "COLLECTION_GROUP" if group else "COLLECTION"
    if not equal and not order:
        return not group
    if len(equal) + len(order) == 1:
        return _has_field(name, scope, [*equal, *order][0], turn if order else "ASCENDING")
    return any(
        index["collectionGroup"] == name
        and index["queryScope"] == scope
        and {f["fieldPath"] for f in index["fields"][: len(equal)]} == set(equal)
        and [(f["fieldPath"], f["order"]) for f in index["fields"][len(equal) :]]
        == [(each, turn) for each in order]
        for index in _KNOWN["indexes"]
    )


def _has_field(name: str, scope: str, path: str, turn: str) -> bool:
    for override in _KNOWN["fieldOverrides"]:
        if (override["collectionGroup"], override["fieldPath"]) == (name, path):
            return {"order": turn, "queryScope": scope} in override["indexes"]
    return scope == "COLLECTION"
