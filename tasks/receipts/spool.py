"""The spool: whole commits kept elsewhere while Documents are away, and landed once they are back.

An outcome that only one process knows outlives the outage there: the state, its precondition and
the signed receipts, under ``spool/{account}/{subject}.{number}``, created once and never changed.
A process that would end another's action in its place asks here first (``holds``).
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from governor.errors import ConflictError, InputError, OutageError, UnreadableError
from governor.records import SYSTEM_ACCOUNT
from ledger import canonical, contracts
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Create, Update, Write
from tasks.receipts.commit import (
    account_of,
    alert,
    ask_for_a_seal,
    commit_and_send,
    is_text,
    receipt,
)

_LOG = logging.getLogger("ggen.spool")
_FOLDER, _ASIDE = "spool", "aside"
_DEPTH = 2
_TRIES = 3
"""Outages after which a drain tries no more of what waits."""


@dataclass(frozen=True, slots=True)
class _Follows:
    """The precondition of a commit whose predecessor is spooled too: what that leaves behind."""

    path: str
    data: Mapping[str, Any]
    expects_sha256: str


def put(
    ports: Ports,
    account_id: str,
    subject: str,
    number: int,
    writes: Sequence[Write],
    *,
    follows: Mapping[str, Any] | None = None,
) -> None:
    """Keep a commit until Documents are back; its receipts say that they were spooled.

    Args:
        ports: the ports.
        account_id: whose it is.
        subject: what it is about: one chain of commits, landed in order of ``number``.
        number: 1 for the first that is spooled.
        writes: one commit, of creations and updates.
        follows: what the updated document holds once the commit before this one has landed.

    Raises:
        OutageError: the spool does not answer either. It may have been kept; repeating is safe.
    """
    marked = [_marked(ports, write) for write in writes]
    kept = [_encoded(write, follows) for write in marked]
    content = json.dumps({"version": 1, "writes": kept}).encode()
    name = f"{_FOLDER}/{account_id}/{subject}.{number:04}"
    try:
        ports.spool.create(name, content)
    except ConflictError as error:
        # The same operations, kept before with other timestamps; or another process's commit.
        if _operations(marked) != _operations(_commit(ports.spool.get(name) or b"")):
            raise OutageError("spool-taken", f"{name} holds another commit: {error}", 5) from error
    _LOG.warning("a commit of %s/%s waits in the spool", account_id, subject)
    try:
        ports.modes.note_spooled()
    except OutageError:
        pass  # a hint: the next health check lists the spool


def holds(ports: Ports, account_id: str, subject: str) -> bool:
    """Whether the end of something waits here. Raises OutageError if the spool cannot be read."""
    return any(True for _ in ports.spool.names(f"{_FOLDER}/{account_id}/{subject}."))


def drain(ports: Ports) -> int:
    """Land what waits, each subject in its order; how many commits still wait.

    Raises:
        OutageError: the spool cannot be listed, or Memory is away.
    """
    left, outages, blocked = 0, 0, set()
    for name in ports.spool.names(f"{_FOLDER}/"):
        if name.count("/") != _DEPTH:
            continue  # an archive of an account of that name, in the same bucket
        chain = name.rpartition(".")[0]
        if outages < _TRIES and chain not in blocked:
            try:
                _land(ports, name)
            except OutageError as error:
                _LOG.warning("%s goes on waiting: %s", name, error)
                outages += 1
                blocked.add(chain)
            except Exception as error:  # nothing in here may keep everybody out for ever
                _LOG.exception("%s cannot be landed", name)
                if _is_set_aside(ports, name, error):
                    continue
            else:
                continue
        left += 1
    ports.modes.note_spooled(left)
    return left


def _land(ports: Ports, name: str) -> None:
    try:
        content = ports.spool.get(name)
    except InputError:
        return  # no name of ours: a foreign file, which means nothing here
    if content is None:
        return  # landed by another check meanwhile
    writes = [_signed_anew(ports, write) for write in _commit(content)]
    if not writes:
        _refuse_unreadable(ports, name, content)
        return
    try:
        ports.documents.commit([_resolved(ports, write) for write in writes])
    except (ConflictError, InputError) as error:
        if not _is_stored(ports, writes):
            _set_aside(ports, name, content, writes, error)
            return
    if not _is_stored(ports, writes):
        raise OutageError("documents-forgetful", "the store does not give back what it took", 5)
    ask_for_a_seal(ports, _receipts(writes))
    _LOG.warning("%s has landed", name)
    try:
        ports.spool.delete(name)
    except OutageError as error:  # it keeps no tenant out: the next drain finds it stored already
        _LOG.error("%s has landed and cannot be removed (see GGEN_SPOOL_URL): %s", name, error)


def _commit(content: bytes) -> list[Write | _Follows]:
    """The writes of a spooled commit; none where it is no commit."""
    try:
        return [_decoded(kept) for kept in json.loads(content)["writes"]]
    except (ValueError, KeyError, TypeError):
        return []


def _operations(writes: Sequence[Write | _Follows]) -> list[str]:
    """What a commit tells: the same operation of the same subject has the same receipt's path."""
    return [proof.path for proof in _receipts(writes)]


def _signed_anew(ports: Ports, write: Write | _Follows) -> Write | _Follows:
    """A receipt under the key in use: one retired meanwhile is not believed of what lands now."""
    if not isinstance(write, Create) or not account_of(write):
        return write
    signer = ports.keys.signer()
    if write.data.get("key_id") == signer.key_id:
        return write
    contract = contracts.validate(SignedReceipt.stored(write.data).fields())
    return Create(write.path, signer.sign(contract).document())


def _is_stored(ports: Ports, writes: Sequence[Write | _Follows]) -> bool:
    """Whether a commit's receipts are there: a commit is atomic, and receipts never change.

    What landed although it was reported as failed does not say that it was spooled.
    """
    for proof in _receipts(writes):
        found = ports.documents.get(proof.path)
        if found is None or _said(found.data) != _said(proof.data):
            return False
    return True


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    """A receipt's fields but for ``spooled``; those of a spoilt document match no receipt's."""
    try:
        fields = SignedReceipt.stored(data).fields()
    except (UnreadableError, InputError):
        return {"": dict(data)}
    return {name: value for name, value in fields.items() if name != "spooled"}


def _receipts(writes: Sequence[Write | _Follows]) -> list[Create]:
    return [w for w in writes if isinstance(w, Create) and account_of(w)]


def _marked(ports: Ports, write: Write) -> Write:
    """A receipt, marked as spooled and signed again; any other write as it is."""
    if not isinstance(write, Create) or not account_of(write):
        return write
    fields = SignedReceipt.stored(write.data).fields()
    contract = contracts.validate({**fields, "spooled": True})
    return Create(write.path, ports.keys.signer().sign(contract).document())


def _encoded(write: Write, follows: Mapping[str, Any] | None) -> dict[str, Any]:
    match write:
        case Create(path, data):
            return {"path": path, "data": data}
        case Update(path, data, revision):
            if follows is None:
                return {"path": path, "data": data, "revision": revision}
            return {"path": path, "data": data, "expects_sha256": _sha256(follows)}
    raise InputError("not-spoolable", "only creations and updates are spooled")


def _decoded(kept: Mapping[str, Any]) -> Write | _Follows:
    path, data = str(kept["path"]), dict(kept["data"])
    if "revision" in kept:
        return Update(path, data, str(kept["revision"]))
    if "expects_sha256" in kept:
        return _Follows(path, data, str(kept["expects_sha256"]))
    return Create(path, data)


def _resolved(ports: Ports, write: Write | _Follows) -> Write:
    if not isinstance(write, _Follows):
        return write
    found = ports.documents.get(write.path)
    if found is None or _sha256(found.data) != write.expects_sha256:
        raise ConflictError("stale-revision", f"{write.path} is not what this commit followed")
    return Update(write.path, write.data, found.revision)


def _set_aside(
    ports: Ports, name: str, content: bytes, writes: Sequence[Write | _Follows], error: Exception
) -> None:
    """Keep what cannot land where a person finds it, and say so: a receipt of each it tells."""
    aside = _kept_aside(ports, name, content)
    for refused in _receipts(writes):
        account_id, identity = account_of(refused), refused.path.rpartition("/")[2]
        proof = receipt(
            ports,
            "receipt_conflict",
            account_id,
            identity,
            status="conflict",
            subject=identity,
            kept_sha256=_kept_sha256(ports, refused, writes),
            refused_sha256=refused.data["sha256"],
        )
        raised, told = alert(
            ports,
            "critical",
            "receipt-conflict",
            account_id,
            identity,
            f"a spooled commit came too late ({error}); it is kept as {aside}",
            cause_receipt=proof,
        )
        commit_and_send(ports, told, proof, *raised)
    ports.spool.delete(name)


def _kept_sha256(ports: Ports, refused: Create, writes: Sequence[Write | _Follows]) -> str:
    """The digest of the winner: the receipt stored under that id, or the state that moved on."""
    found = ports.documents.get(refused.path)
    if found is not None:
        return str(found.data.get("sha256") or _sha256(found.data))
    states = [w for w in writes if not (isinstance(w, Create) and (account_of(w) or is_text(w)))]
    there = ports.documents.get(states[0].path) if states else None
    return _sha256(there.data if there else {})


def _refuse_unreadable(ports: Ports, name: str, content: bytes) -> None:
    aside = _kept_aside(ports, name, content)
    raised, told = alert(
        ports,
        "critical",
        "spool-unreadable",
        SYSTEM_ACCOUNT,
        aside[-256:],
        f"what lay in the spool is no commit; it is kept as {aside}",
    )
    commit_and_send(ports, told, *raised)
    ports.spool.delete(name)


def _is_set_aside(ports: Ports, name: str, error: Exception) -> bool:
    """Keep what we fail to deal with where it holds nothing up, with an alarm; whether it is."""
    try:
        _refuse_unreadable(ports, name, ports.spool.get(name) or repr(error).encode())
    except Exception:
        _LOG.exception("%s cannot be set aside", name)
        return False
    return True


def _kept_aside(ports: Ports, name: str, content: bytes) -> str:
    """Its name, by its content: one subject may be set aside more than once."""
    digest = hashlib.sha256(content).hexdigest()[:12]
    aside = f"{_ASIDE}{name.removeprefix(_FOLDER)}-{digest}"
    ports.spool.create(aside, content)
    return aside


def _sha256(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical.dumps(dict(data))).hexdigest()
