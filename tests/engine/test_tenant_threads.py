"""A tenant that floods the ingress waits behind itself."""

import asyncio
import threading

from ingress.state import TenantThreads


def test_a_tenant_takes_only_its_share_of_the_threads() -> None:
    threads, doors = TenantThreads(), threading.Event()
    at_work = []

    def work() -> None:
        at_work.append(1)
        doors.wait(10)

    async def play() -> int:
        loud = [asyncio.create_task(threads.work("loud", work)) for _ in range(64)]
        while len(at_work) < 16:
            await asyncio.sleep(0.005)
        quiet = await asyncio.wait_for(threads.work("quiet", lambda: len(at_work)), 5)
        doors.set()
        await asyncio.gather(*loud)
        return quiet

    assert asyncio.run(play()) == 16
    assert len(at_work) == 64
    assert not threads._of  # what nobody uses is not kept
