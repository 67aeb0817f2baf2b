"""A tenant that floods the ingress waits behind itself."""

import asyncio
import threading

import pytest

from governor.errors import OutageError
from ingress.state import TenantThreads


@pytest.mark.parametrize(("store_name", "share"), [("sqlite", 4), ("firestore", 16)])
def test_a_tenant_takes_only_its_share_of_the_threads(store_name: str, share: int) -> None:
    threads, doors = TenantThreads(store_name), threading.Event()
    at_work = []

    def work() -> None:
        at_work.append(1)
        doors.wait(10)

    async def play() -> int:
        loud = [asyncio.create_task(threads.work("loud", work)) for _ in range(64)]
        while len(at_work) < share:
            await asyncio.sleep(0.005)
        quiet = await asyncio.wait_for(threads.work("quiet", lambda: len(at_work)), 5)
        doors.set()
        await asyncio.gather(*loud)
        return quiet

    assert asyncio.run(play()) == share
    assert len(at_work) == 64
    assert not threads._of  # what nobody uses is not kept


@pytest.mark.parametrize("tenants", [1, 8])
def test_what_waits_too_long_for_a_thread_is_refused(tenants: int) -> None:
    threads, doors = TenantThreads("firestore", patience_s=0.1), threading.Event()
    at_work = []

    def work() -> None:
        at_work.append(1)
        doors.wait(10)

    async def play() -> list[object]:
        asked = [asyncio.create_task(threads.work(f"t-{n % tenants}", work)) for n in range(64)]
        refused, _ = await asyncio.wait(asked, timeout=1)
        doors.set()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {asked.index(each) for each in refused} == {
            n for n, each in enumerate(ended) if isinstance(each, OutageError)
        }
        return ended

    ended = asyncio.run(play())
    most = 16 if tenants == 1 else 40
    assert len(at_work) == most
    assert [e.code for e in ended if isinstance(e, OutageError)] == ["busy"] * (64 - most)
