"""The policy registry: immutable documents in Objects, the version in force in Documents.

A policy is known by the digest of its canonical JSON: the same content in other whitespace is the
same version.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ggen_governor.handlers import registered
from governor import policy
from governor.actions import UNDER_WAY, Action
from governor.compatibility import number_of
from governor.errors import ConflictError, InputError, PolicyError
from governor.fsm import ENTITLEMENT_ENDED
from governor.policy import MAX_POLICY_BYTES, Policy
from governor.tenancy import Entitlement
from ledger import canonical
from ledger.checkpoint import open_note
from ports import Ports
from ports.documents import Create, Document, Where, every

_MAX_SIGNATURE_CHARS = 16 * 1024


@dataclass(frozen=True, slots=True)
class Registered:
    """A version that lies in the registry, and the one that is in force for its plan now."""

    policy: Policy
    digest: str
    in_force: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A version as this process uses it, and its digest."""

    policy: Policy
    digest: str


def register(ports: Ports, document: bytes, signature: str = "") -> Registered:
    """Put a version into the registry, or find it there.

    The first version of a plan comes into force at once; any other by Runbook 2. ``signature`` is
    that of the canonical JSON and a line break, as a line of a signed note (c2sp.org/signed-note).

    Raises:
        InputError: not a valid policy, it names an unknown handler, or no key of ours has signed
            it; nothing was stored.
        ConflictError: this version is registered with other content; give it a new version.
    """
    parsed, text = parse(document)
    if ports.policy_keys:
        _refuse_unless_signed(ports.policy_keys, text, signature)
    done = _register(ports, parsed, text)
    if signature:
        name = hashlib.sha256(signature.encode()).hexdigest()[:16]
        ports.objects.create(f"{_signatures(done.digest)}{name}", signature.encode())
    return done


def register_way_back(ports: Ports, document: bytes) -> Registered:
    """The same for what this system makes itself of a version that is registered.

    Its signature is that version's (``refuse_unless_signed``).
    """
    return _register(ports, *parse(document))


def _register(ports: Ports, parsed: Policy, text: bytes) -> Registered:
    name = _object(parsed.sku_id, parsed.plan_type, parsed.policy_version)
    try:
        is_new = ports.objects.create(name, text)
    except ConflictError:
        there = ports.objects.get(name)  # perhaps the same, in the bytes of an earlier release
        if there is None or canonical.dumps(canonical.loads(there)) != text:
            raise
        is_new = False
    in_force = _first_in_force(ports, parsed, digest_of(text))
    return Registered(parsed, digest_of(text), in_force, is_new)


def parse(document: bytes) -> tuple[Policy, bytes]:
    """A policy that this process can use, and its canonical text.

    Raises:
        InputError: not a valid policy, or it names an unknown handler.
    """
    policy.refuse_if_too_large(len(document))
    text = canonical.dumps(canonical.loads(document))  # refuses what two readers could take apart
    return policy.parse(text, registered()), text


def refuse_unless_signed(ports: Ports, sku_id: str, plan_type: str, version: str) -> None:
    """Verify the signature that lies beside a registered version, by the keys of this process.

    A way back says what the version before said, and has that one's signature.

    Raises:
        InputError: ``policy-signature``: no key of ours has signed it.
    """
    if not ports.policy_keys:
        return
    text = text_of(ports, sku_id, plan_type, version)
    names = list(ports.objects.names(_signatures(digest_of(text))))
    if not names and (before := canonical.loads(text).get("rolls_back")):
        former = text_of(ports, sku_id, plan_type, str(before))
        if content_digest_of(former) == content_digest_of(text):
            refuse_unless_signed(ports, sku_id, plan_type, str(before))
            return
    kept = [(ports.objects.get(name) or b"").decode(errors="replace") for name in names]
    for signature in kept[:-1]:
        with contextlib.suppress(InputError):
            _refuse_unless_signed(ports.policy_keys, text, signature)
            return
    _refuse_unless_signed(ports.policy_keys, text, kept[-1] if kept else "")


def _refuse_unless_signed(keys: Sequence[str], text: bytes, signature: str) -> None:
    body = f"{text.decode()}\n"
    note = f"{body}\n{signature}"
    for key in keys:
        with contextlib.suppress(InputError):
            limit = MAX_POLICY_BYTES + _MAX_SIGNATURE_CHARS
            if open_note(note, key, most_chars=limit) == body:
                return
    why = "it bears no signature" if not signature else "its signature fits none of them"
    raise InputError(
        "policy-signature",
        f"a policy must be signed by one of GGEN_POLICY_KEYS, and {why}. Nothing came into force. "
        "Sign it, and publish it again: ggen policy sign FILE --key KEY --name NAME",
    )


def digest_of(text: bytes) -> str:
    """A policy's identity: SHA-256 over its canonical JSON, in hex."""
    return hashlib.sha256(text).hexdigest()


def content_digest_of(text: bytes) -> str:
    """The same without its version: equal where two versions say the same."""
    fields = canonical.loads(text)
    for name in ("policy_version", "rolls_back"):
        fields.pop(name, None)
    return hashlib.sha256(canonical.dumps(fields)).hexdigest()


def text_of(ports: Ports, sku_id: str, plan_type: str, version: str) -> bytes:
    """A registered version's canonical text.

    Raises:
        InputError: no such version is registered.
    """
    found = ports.objects.get(_object(sku_id, plan_type, version))
    if found is None:
        raise InputError("no-policy", f"there is no policy {sku_id}/{plan_type} {version}")
    return canonical.dumps(canonical.loads(found))


def rolling_back(text: bytes, version: str) -> bytes:
    """The document of a new version that has the content of an earlier one."""
    fields = canonical.loads(text)
    fields |= {"policy_version": version, "rolls_back": fields["policy_version"]}
    return canonical.dumps(fields)


def versions(ports: Ports, sku_id: str, plan_type: str) -> list[str]:
    """Every registered version of a plan, oldest first."""
    names = ports.objects.names(f"policies/{sku_id}/{plan_type}/")
    found = (name.rpartition("/")[2].removesuffix(".json") for name in names)
    return sorted(found, key=number_of)


def in_use(ports: Ports, sku_id: str, plan_type: str) -> list[str]:
    """The versions a new one has to get on with: in force, held, or acted under just now."""
    pointer = pointer_of(ports, sku_id, plan_type)
    found = {str(pointer.data["policy_version"])} if pointer else set()
    held = set[tuple[str, str]]()
    of_sku = [Where("sku_id", "==", sku_id)]
    for document in every(ports.documents, "entitlements", *of_sku, group=True):
        entitlement = Entitlement.stored(document.data)
        if entitlement.plan_type == plan_type and entitlement.state not in ENTITLEMENT_ENDED:
            held.add((entitlement.account_id, entitlement.entitlement_id))
            found.add(entitlement.policy_version)
    under_way = Where("state", "in", UNDER_WAY)
    for document in every(ports.documents, "actions", under_way, group=True):
        action = Action.stored(document.data)
        if (action.account_id, action.entitlement_id) in held:
            found.add(action.policy_version)
    return sorted(found & set(versions(ports, sku_id, plan_type)), key=number_of)


def in_force(ports: Ports, sku_id: str, plan_type: str) -> Policy:
    """The policy a new entitlement gets.

    Raises:
        InputError: no policy is registered for this SKU and plan.
        PolicyError: one is, and this process cannot use it.
    """
    pointer = pointer_of(ports, sku_id, plan_type)
    if pointer is None:
        raise InputError(
            "no-policy", f"no policy is registered for SKU {sku_id!r} with plan {plan_type!r}"
        )
    return load(ports, sku_id, plan_type, pointer.data["policy_version"])


def pointer_of(ports: Ports, sku_id: str, plan_type: str) -> Document | None:
    """The document that names a plan's version in force."""
    return ports.documents.get(pointer_path(sku_id, plan_type))


def pointer_path(sku_id: str, plan_type: str) -> str:
    """Where it lies."""
    return f"policies/{sku_id}~{plan_type}"


def plan_of(pointer: Document) -> tuple[str, str]:
    """The SKU and the plan whose version in force a document names."""
    sku_id, _, plan_type = pointer.path.partition("/")[2].partition("~")
    return sku_id, plan_type


def load(ports: Ports, sku_id: str, plan_type: str, version: str) -> Policy:
    """One version of a policy; versions never change, so they are kept in this process.

    Raises:
        PolicyError: not registered, or it names a handler this process does not have.
    """
    return load_named(ports, sku_id, plan_type, version).policy


def load_named(ports: Ports, sku_id: str, plan_type: str, version: str) -> Named:
    """The same, with its digest.

    Raises:
        PolicyError: as ``load``.
    """
    return _load(ports.objects.get, sku_id, plan_type, version)


def read(ports: Ports, sku_id: str, plan_type: str, version: str) -> Policy:
    """One version, whether or not this process has its handlers.

    Raises:
        InputError: no such version is registered, or it is none.
    """
    text = text_of(ports, sku_id, plan_type, version)
    return policy.parse(text, None)


def unusable(ports: Ports) -> Iterator[tuple[str, str, PolicyError | None]]:
    """Each SKU and plan with a policy in force, and why this process cannot use it, if so."""
    for pointer in every(ports.documents, "policies"):
        sku_id, plan_type = plan_of(pointer)
        try:
            load(ports, sku_id, plan_type, str(pointer.data.get("policy_version")))
        except PolicyError as error:
            yield sku_id, plan_type, error
        else:
            yield sku_id, plan_type, None


def forget_loaded() -> None:
    """Clear the cache, so that policies are read and checked again."""
    _load.cache_clear()


@lru_cache(maxsize=4096)
def _load(get: Callable[[str], bytes | None], sku_id: str, plan_type: str, version: str) -> Named:
    document = get(_object(sku_id, plan_type, version))
    name = f"policy {sku_id}/{plan_type} {version}"
    if document is None:
        raise PolicyError("policy-unusable", f"{name} is in force and not registered", 30)
    try:
        digest = digest_of(canonical.dumps(canonical.loads(document)))
        return Named(policy.parse(document, registered()), digest)
    except InputError as error:
        raise PolicyError("policy-unusable", f"{name}: {error.detail}", 30) from error


def _first_in_force(ports: Ports, parsed: Policy, digest: str) -> str:
    path = pointer_path(parsed.sku_id, parsed.plan_type)
    first = {"policy_version": parsed.policy_version, "policy_digest": digest}
    found = ports.documents.get(path)
    if found is None:
        try:
            ports.documents.commit([Create(path, first)])
            return parsed.policy_version
        except ConflictError:
            found = ports.documents.get(path)
    return str(found.data["policy_version"]) if found else parsed.policy_version


def _signatures(digest: str) -> str:
    """Where a version's signatures lie; another key may sign it, too."""
    return f"signatures/{digest}/"


def _object(sku_id: str, plan_type: str, version: str) -> str:
    return f"policies/{sku_id}/{plan_type}/{version}.json"
