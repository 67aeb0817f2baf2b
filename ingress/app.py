"""The ASGI app: ``uvicorn ingress.app:create_app --factory``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from adapters import wiring
from adapters.wiring import open_hearing
from config.logs import configure
from config.settings import load
from governor.errors import GovernorError
from ingress import problems
from ingress.failures import Failures
from ingress.refusals import Refusals
from ingress.routes import alerts, health, policies, reads, signals, webhooks
from ingress.state import State
from ingress.submissions import Submissions
from ingress.tenant_keys import TenantKeys
from tasks.actions.admit import submit_all
from tasks.governors.listener import Listener


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    configure()
    ports, settings = wiring.ports(), load()
    await run_in_threadpool(ports.clock.now)  # settled before anything is asked of this loop
    failures = Failures(settings.trusted_proxies, ports.clock)
    listener = Listener(ports, "ingress", open_hearing(settings))
    submissions = Submissions(partial(submit_all, ports), ports.store_name)
    keys = TenantKeys(ports)
    state = State(ports, settings, Refusals(ports), failures, keys, listener, submissions)
    listener.start()
    app.state.ggen = state
    background = [
        asyncio.create_task(state.waiters.listen(settings)),
        asyncio.create_task(state.refusals.hand_over()),
        asyncio.create_task(state.see_memory()),
    ]
    yield
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await state.refusals.flush()
    await run_in_threadpool(listener.stop)


def create_app() -> FastAPI:
    """The app; ports are opened when it starts."""
    # The interactive pages load scripts from elsewhere, so only the document itself is served.
    app = FastAPI(
        title="ggen governor", version="1", lifespan=_lifespan, docs_url=None, redoc_url=None
    )
    for module in (health, webhooks, signals, policies, alerts, reads):
        app.include_router(module.router)
    app.add_exception_handler(GovernorError, problems.on_governor_error)
    app.add_exception_handler(HTTPException, problems.on_http_error)
    app.add_exception_handler(RequestValidationError, problems.on_validation_error)
    app.add_exception_handler(Exception, problems.on_bug)
    return app
