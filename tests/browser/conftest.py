"""A headless Chromium for pages; what it says on its console and asks of the network is a fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

# The headless shell draws the same pages with half the processor time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Visit:
    """An open page, what its console said (warnings and errors), and the addresses that it asked for."""

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def barriers(page: Page, scheme: Literal["light", "dark"]) -> list[str]:
    """What axe-core finds on a page that keeps people from using it: rule and elements. scheme: of colours."""
    page.emulate_media(color_scheme=scheme)
    violations = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['target']}" for each in violations for node in each["nodes"]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without windows where it is installed so, or another one."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(
            f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium-headless-shell)"
        )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Path, int], Visit]]:
    """Opens a file at a window width; afterwards no fault may have been said and nothing but the file asked for."""
    visits: list[Visit] = []

    def opened(path: Path, width: int = 1280) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": 900})
        seen = Visit(page)
        page.on("console", lambda message: seen.faults.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: seen.faults.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(path.resolve().as_uri())
        visits.append(seen)
        return seen

    yield opened
    for seen in visits:
        address = seen.page.url.split("#")[0]
        seen.page.close()
        assert not seen.faults
        assert {url for url in seen.requests if not url.startswith(("data:", "blob:"))} == {address}
