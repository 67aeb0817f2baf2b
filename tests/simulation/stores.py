"""Simulated stores: Documents and Objects in dictionaries, Memory on fakeredis."""

import os
import random
import types
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import fakeredis
import fakeredis._helpers
import fakeredis._socket._base
import fakeredis.commands_mixins.scripting_mixin as scripting
import fakeredis.commands_mixins.server_mixin
import lupa.lua51
from fakeredis.model import _expiring_members_set

from adapters.rules import checked, order_of
from adapters.valkey import health, slots
from adapters.valkey.memory import ValkeyMemory
from governor.errors import ConflictError, OutageError
from ledger.keys import ALWAYS, KeyRing, TrustedKey
from ledger.receipt import Signer
from ports.alerts import Alert
from ports.documents import Create, Delete, Document, Landed, Query, Where, Write, one_by_one
from tests.simulation.world import SimClock, World


class SimDocuments:
    """``ports.documents.Documents``. ``seen`` hears every commit that lands, and may object."""

    late_s = 0.0

    def __init__(self, world: World) -> None:
        self._world = world
        self.held: dict[str, Document] = {}
        self.seen: Callable[[Sequence[Write]], None] = lambda _writes: None
        self._of: dict[str, dict[str, None]] = {}
        self._count = 0

    def get(self, path: str) -> Document | None:
        found = self.held.get(path)
        return None if found is None else _copied(found)

    def commit(self, writes: Sequence[Write]) -> list[str]:
        checked(writes)
        for write in writes:
            found = self.held.get(write.path)
            if isinstance(write, Create):
                if found is not None:
                    raise ConflictError("exists", f"{write.path} exists")
                if write.by_s is not None and SimClock(self._world).monotonic_s() > write.by_s:
                    raise ConflictError("too-late", f"{write.path} comes too late")
            elif found is None or found.revision != write.revision:
                raise ConflictError("moved", f"{write.path} was moved")
        self.seen(writes)
        return [self._write(write) for write in writes]

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        return one_by_one(self.commit, commits)

    def _write(self, write: Write) -> str:
        name = write.path.rpartition("/")[0]
        if isinstance(write, Delete):
            del self.held[write.path]
            del self._of[name][write.path]
            return ""
        self._count += 1
        found = self.held.get(write.path)
        created = (
            found.created_at if found else self._world.now() + timedelta(microseconds=self._count)
        )
        revision = str(self._count)
        self.held[write.path] = Document(write.path, copied(write.data), revision, created)
        self._of.setdefault(name, {})[write.path] = None
        return revision

    def _in(self, collection: str, *, group: bool) -> Iterator[Document]:
        for name, paths in self._of.items():
            if name == collection or (group and name.rpartition("/")[2] == collection):
                yield from map(self.held.__getitem__, paths)

    def scan(self, query: Query) -> list[Document]:
        order = order_of(query.where, query.order_by)

        def key(document: Document) -> tuple[str, str]:
            return (str(document.data[order]) if order else "", document.path)

        found = [
            document
            for document in self._in(query.collection, group=query.group)
            if all(_holds(each, document) for each in query.where)
            and (order is None or order in document.data)
        ]
        found.sort(key=key, reverse=query.descending)
        if query.after is not None:
            found = [
                each
                for each in found
                if (key(each) < query.after if query.descending else key(each) > query.after)
            ]
        return [_copied(each) for each in found[: query.at_most]]

    def count(self, collection: str, where: Sequence[Where]) -> int:
        documents = self._in(collection, group=False)
        return sum(all(_holds(each, document) for each in where) for document in documents)

    def created(
        self, collection: str, *, after: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        found = sorted((d.created_at, d.path) for d in self._in(collection, group=False))
        return [
            _copied(self.held[path]) for at, path in found if after is None or (at, path) > after
        ][:limit]

    def close(self) -> None:
        """Nothing is open."""


def _copied(document: Document) -> Document:
    return Document(document.path, copied(document.data), document.revision, document.created_at)


def copied(value: Any) -> Any:
    """A value of JSON, copied as deep as it is."""
    if isinstance(value, dict):
        return {name: copied(each) for name, each in value.items()}
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value


def _holds(where: Where, document: Document) -> bool:
    value = document.data.get(where.field)
    if value is None:
        return False
    match where.op:
        case "==":
            return bool(value == where.value)
        case "in":
            return value in where.value  # type: ignore[operator]
        case "<=":
            return bool(value <= where.value)
        case _:
            return bool(value >= where.value)


class SimObjects:
    """``ports.objects.Objects``."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def create(self, name: str, content: bytes) -> bool:
        if name in self.held and self.held[name] != content:
            raise ConflictError("exists", f"{name} exists")
        is_new = name not in self.held
        self.held[name] = content
        return is_new

    def get(self, name: str, most: int | None = None) -> bytes | None:
        found = self.held.get(name)
        return found if found is None or most is None else found[:most]

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self.held if name.startswith(prefix))

    def address(self, name: str) -> str:
        return f"file:///sim/{name}"

    def delete(self, name: str) -> None:
        self.held.pop(name, None)


class SimSecrets:
    """``ports.secrets.Secrets``: which tenants have their key."""

    def __init__(self) -> None:
        self.published: dict[str, int] = {}

    def publish_tenant_key(self, account_id: str, generation: int = 1) -> None:
        self.published[account_id] = generation

    def withdraw_tenant_key(self, account_id: str) -> None:
        self.published.pop(account_id, None)


class SimKeys:
    """``ports.keys.Keys``: one key."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._ring = KeyRing(
            keys=(TrustedKey.of(signer.public_key, ALWAYS),), origin="ledger.example"
        )

    def signer(self) -> Signer:
        return self._signer

    def ring(self) -> KeyRing:
        return self._ring


class SimAlerts:
    """``ports.alerts.Alerts``: what was sent."""

    def __init__(self) -> None:
        self.sent: list[Alert] = []

    def send(self, alert: Alert) -> None:
        self.sent.append(alert)

    def addresses(self) -> dict[str, str]:
        return {}


# -- Memory


class _Compiled:
    """fakeredis's Lua, which compiles a script once and collects no garbage after each call."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._functions = inner, dict[bytes, Any]()

    def execute(self, script: Any) -> Any:
        if script == "collectgarbage()":
            return None
        if script not in self._functions:
            self._functions[script] = self._inner.compile(script)
        return self._functions[script]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Lua:
    """The module fakeredis takes its runtime from."""

    LuaError = lupa.lua51.LuaError

    def __getattr__(self, name: str) -> Any:
        return getattr(lupa.lua51, name)

    @staticmethod
    def LuaRuntime(**options: Any) -> Any:  # its name there
        return _Compiled(lupa.lua51.LuaRuntime(**options))


def patched(world: World) -> Iterator[tuple[Any, str, Any]]:
    """What has to go by the world's clock instead of the machine's: object, attribute, value."""
    clock = types.SimpleNamespace(
        time=lambda: world.now().timestamp(), monotonic=lambda: world.now_s, sleep=world.sleep
    )
    for module in (
        fakeredis._helpers,
        fakeredis._socket._base,
        fakeredis.commands_mixins.server_mixin,
    ):
        yield module, "time", clock
    yield _expiring_members_set, "random", random.Random(world.seed)  # SPOP
    yield scripting, "_check_for_lua_globals", lambda *_: None
    yield scripting, "LUA_MODULE", _Lua()
    for module in (health, slots):
        yield module, "since_boot_ms", lambda: round(world.now_s * 1000) + 1_000_000
    yield slots, "boot_id", lambda: f"boot-{world.host()}"


class _Server(fakeredis.FakeRedis):
    """A client of the simulated server, which also says which start of the server this is."""

    run_id = "run-1"

    def info(self, section: str | None = None, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return {"run_id": self.run_id, "section": section}


class SimMemory(ValkeyMemory):
    """The real adapter, and its scripts, on a simulated server."""

    def __init__(self, world: World) -> None:
        super().__init__("redis://simulated")
        self.server = fakeredis.FakeServer(version=(7,))
        self._world = world
        self._held = (
            os.getpid(),
            _Server(server=self.server, decode_responses=True, single_connection_client=True),
        )

    @property
    def redis(self) -> Any:
        """The client, for who looks from outside."""
        return self._held[1] if self._held else None

    def wait(self, limit_ms: int, server: str, within_ms: int) -> None:
        """A server that is not asked sleeps instead of blocking: it takes in any case."""
        self._world.sleep(within_ms / 1000)

    def wipe(self) -> None:
        """Lose everything."""
        self.redis.flushall()


_WRITES = ("commit", "create", "delete", "publish")


class Gated:
    """A port whose every call takes time and may fail, as the seed says."""

    def __init__(self, world: World, inner: Any, store: str) -> None:
        self._world, self._inner, self._store = world, inner, store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, found, args, kwargs)

        return call

    def _call(self, name: str, found: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        world, rates = self._world, self._world.rates
        is_faulty = not world.is_frozen and self._store in world.hurts
        world.sleep(_delay_s(world, is_faulty and world.rng.random() < rates.stall))
        if is_faulty and world.rng.random() < rates.death:
            world.kill(world.current(), f"at {self._store}.{name}")
            world.sleep(0)
        if world.down.get(self._store, 0.0) > world.now_s or world.is_cut(world.current()):
            world.sleep(0.2)
            raise self._outage(name)
        is_commit = is_faulty and name in ("commit", "commit_each") and self._store == "documents"
        if is_commit and world.rng.random() < rates.outage_at_commit:
            world.down["documents"] = world.now_s + world.rng.choice((1.5, 3.0, 6.0))
            world.hurt = world.current()
            world.tell(f"outage of documents at a commit of {world.current().task}")
            if world.rng.random() < 0.5:  # its answer is lost, and it has landed
                found(*args, **kwargs)
            raise self._outage(name)
        if is_faulty and world.rng.random() < rates.lost:
            raise self._outage(name)
        is_cursed = is_faulty and name == rates.cursed and world.rng.random() < 0.15
        fate = (
            world.rng.choice(("dies", "stalls", "dies after", "stalls after")) if is_cursed else ""
        )
        self._meet(fate, "dies", "stalls", name)
        told = found(*args, **kwargs)
        self._meet(fate, "dies after", "stalls after", name)
        told = list(told) if isinstance(told, Iterator) else told
        if is_faulty and world.rng.random() < rates.landed:
            raise self._outage(name)
        return told

    def _meet(self, fate: str, dies: str, stalls: str, name: str) -> None:
        """Die or stand still at a cursed call."""
        world = self._world
        if fate == dies:
            world.kill(world.current(), f"{dies} {self._store}.{name}")
            world.sleep(0)
        elif fate == stalls:
            world.tell(f"{world.current().role} {world.current().pid} {stalls} {name}")
            world.sleep(world.rng.choice((0.3, 1.5, 3.0, 9.0)))

    def _outage(self, name: str) -> OutageError:
        self._world.tell(f"fault {self._store}.{name} in {self._world.current().task}")
        return OutageError(f"{self._store}-unavailable", f"simulated, at {name}", 1)


def _delay_s(world: World, stalls: bool) -> float:
    if stalls:
        world.tell(f"stall of {world.current().role} {world.current().pid}")
        return world.rng.choice((0.05, 0.3, 1.0, 3.0, 8.0, 18.0))
    return 0.0001 + 0.002 * world.rng.random() ** 3
