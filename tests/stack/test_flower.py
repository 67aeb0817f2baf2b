"""What an operator sees in Flower: each step by its name, and what became of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.stack.conftest import Stack, created
from tests.support.waiting import until

STEPS = [
    "entitlement_lifecycle.policy",
    "deploy_sku.documents",
    "deploy_sku.signals",
    "deploy_sku.governor",
    "entitlement_lifecycle.finish",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module", autouse=True)
def _played(stack: Stack) -> None:
    """A customer subscribes and an action of theirs times out; another one is refused."""
    stack.subscribe("flower-acme")
    stack.subscribe("flower-killed")
    asked = {"signal_id": "s-late", "type": "demo.sleep", "payload": {"seconds": 871.5}}
    late = stack.signal("flower-acme", asked).headers["Location"]
    refused = stack.webhook(created("flower-none", sku_id="unknown-sku"))
    assert refused.status_code == 422
    killed = {"signal_id": "s-killed", "type": "demo.swallow", "payload": {}}
    assert stack.signal("flower-killed", killed).status_code == 202
    until(lambda: stack.read(late)["ended_at"])
    until(lambda: {"SUCCESS", "FAILURE"} <= {t["state"] for t in _tasks(stack, "flower-")})


def _tasks(stack: Stack, search: str) -> list[dict[str, Any]]:
    """What Flower's API says, oldest first."""
    url = f"http://127.0.0.1:{stack.flower_port}/api/tasks"
    answer = httpx.get(url, auth=("ggen", stack.secrets.read("flower.password")), trust_env=False)
    found = [t for t in answer.json().values() if search in (t["kwargs"] or "")]
    return sorted(found, key=lambda task: task["received"])


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        login = {"username": "ggen", "password": stack.secrets.read("flower.password")}
        opened = browser.new_page(
            http_credentials=login,  # type: ignore[arg-type]
            viewport={"width": 1700, "height": 640},
            base_url=f"http://127.0.0.1:{stack.flower_port}",
        )
        yield opened
        browser.close()


@pytest.fixture
def show(request: pytest.FixtureRequest, page: Page) -> Callable[[str], None]:
    """Keep what the page shows as a picture, where the pictures of the docs are made anew."""
    folder = request.config.getoption("--pictures")

    def keep(name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png")

    return keep


def _search(page: Page, words: str) -> list[dict[str, str]]:
    """The rows of Flower's table of tasks that an operator finds, by column; oldest first."""
    page.goto("/tasks")
    page.locator("#tasks-table tbody tr").first.wait_for()
    page.locator("input[type=search]").first.fill(words)
    until(lambda: all(words in row.get("kwargs", "") for row in _rows(page)))
    return _rows(page)


def _rows(page: Page) -> list[dict[str, str]]:
    names = [name.lower() for name in page.locator("#tasks-table th").all_text_contents()]
    found = [
        dict(zip(names, row.locator("td").all_text_contents(), strict=False))
        for row in page.locator("#tasks-table tbody tr").all()
    ]
    return sorted(found, key=lambda row: row.get("received", ""))


def test_the_steps_of_a_webhook_are_found_by_account_in_their_order(
    page: Page, show: Callable[[str], None]
) -> None:
    rows = _search(page, "flower-acme")
    show("flower-steps")

    steps = [row for row in rows if row["name"] in STEPS]
    assert [row["name"] for row in steps] == STEPS
    assert {row["state"] for row in steps} == {"SUCCESS"}
    assert all("run_id" in row["kwargs"] for row in steps)


def test_a_refused_webhook_and_a_late_action_are_under_failed(
    page: Page, show: Callable[[str], None]
) -> None:
    page.goto("/tasks")
    page.locator("#tasks-table tbody tr").first.wait_for()
    page.locator('button[data-task-state="FAILURE"]').click()
    until(lambda: {row["state"] for row in _rows(page)} == {"FAILURE"})
    show("flower-failed")

    told = [row for row in _rows(page) if "flower-" in row["kwargs"]]
    assert {row["name"]: row["exception"] for row in told} == {
        "execute_action.run": "ActionTimedOut('DEADLINE_EXCEEDED')",
        STEPS[0]: "StepFailed('InputError: no-policy')",
    }
    assert any("demo.sleep" in row["kwargs"] and "demo-sku" in row["kwargs"] for row in told)


def test_an_action_whose_process_was_killed_is_under_failed_and_says_so(stack: Stack) -> None:
    """It swallows its deadline; its own process cannot tell any more."""

    def ends() -> list[tuple[str, str]]:
        found = _tasks(stack, "flower-killed")
        return [(t["state"], t["exception"]) for t in found if t["name"] == "execute_action.run"]

    until(lambda: ends() == [("FAILURE", "ActionTimedOut('DEADLINE_EXCEEDED')")], 30)


def test_no_page_shows_a_payload_or_a_secret(
    stack: Stack, page: Page, show: Callable[[str], None]
) -> None:
    secrets = [
        file.read_text().strip()
        for file in (stack.state / "secrets").rglob("*")
        if file.is_file() and file.read_text().strip()
    ]
    seen = ""
    for task in _tasks(stack, "flower-"):
        page.goto(f"/task/{task['uuid']}")
        seen += page.content()
        if task["state"] == "FAILURE" and task["name"] == "execute_action.run":
            show("flower-task")
    page.goto("/")
    show("flower-workers")
    seen += page.content()

    assert "execute_action.run" in seen
    assert "871.5" not in seen
    assert [each for each in secrets if each in seen] == []
