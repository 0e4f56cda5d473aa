"""The studio as a process of its own and Debian's Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the playwright package")

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
STUDIO = """
import dataclasses, sys
from fkv.models import registry
from fkv.runtime import studio
tiny = registry.MODELS["tiny"]
load = lambda *args, **setup: tiny.load(*args, **setup).with_steps(2)
registry.MODELS["tiny"] = dataclasses.replace(tiny, load=load)
sys.exit(studio())
"""
"""Starts a studio with the shipped model in half its steps: what it shows is not looked at here."""
FORGET = "if (!sessionStorage.getItem('begun')) { localStorage.clear(); sessionStorage.setItem('begun', 'yes'); }"
"""Begins a tab without what an earlier one has left; it keeps its own when it is loaded again."""
PATIENCE = 150_000
"""Milliseconds until a wait on the page fails; a free machine needs a few hundred."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))  # seconds; the first of them starts the studio too
            if not CHROMIUM:
                item.add_marker(pytest.mark.skip(reason="no chromium: install it, or name one in $CHROMIUM"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running studio."""
    port, log = free_port(), tmp_path_factory.mktemp("studio") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", STUDIO, "--port", str(port)], cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    """A browser for one file of tests: while it is there, its event loop runs and no other can begin."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A tab on the studio that notes what should not happen: errors on the console, requests to elsewhere."""

    def __init__(
        self,
        page: playwright.Page,
        address: str,
        width: int = 1280,
        height: int = 900,
        query: str = "",
        toured: bool = True,
        reduced_motion: str | None = None,
    ) -> None:
        self.address, self.page, self.troubles = address, page, []
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(reduced_motion=reduced_motion)
        self.page.add_init_script(FORGET)
        if toured:  # the tour's card, which greets first visitors, would lie over what tests press
            self.page.add_init_script("localStorage.setItem('fkv-tour', 'seen')")
        self.page.set_default_timeout(PATIENCE)
        playwright.expect.set_options(timeout=PATIENCE)
        self.page.on("console", lambda message: message.type == "error" and self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on(
            "request",
            lambda request: request.url.startswith((address, "data:", "blob:")) or self.troubles.append(request.url),
        )
        self.page.goto(f"{address}/{query}")
        self.until("window.fkvStudio")
        if (
            "length=" in query
        ):  # wait until the form has taken the address in; no test uses the length with which the form begins
            (length,) = parse_qs(query.lstrip("?"))["length"]
            playwright.expect(self.page.get_by_label("Chunks (0: endless)")).to_have_value(length)

    def until(self, condition: str) -> None:
        """Wait for a JavaScript condition, and no longer than until the stage reports an error.

        It should be one that stays true until the test itself ends it: what passes by can be missed.
        """
        self.page.wait_for_function(f"({condition}) || window.fkvStudio?.state === 'error'")
        if "'error'" not in condition:
            assert self.stage("state") != "error", self.status

    def stage(self, expression: str) -> object:
        """A value of the stage, as in `painted.A`."""
        return self.page.evaluate(f"window.fkvStudio.{expression}")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()
        if name == "Go live":  # what is seen from now on is the visitor's own run
            self.until(
                "!['idle', 'recorded'].includes(window.fkvStudio.state) && !window.fkvStudio.player.loop"
                " || window.fkvStudio.state === 'error'"
            )

    def still(self) -> None:
        """Let what is replayed stand where it is, so that a test can look at it for as long as it needs."""
        self.page.evaluate("window.fkvStudio.player.fps = 1e-6")

    @property
    def status(self) -> str:
        return self.page.locator(".fkv-status").inner_text()


@pytest.fixture(scope="module")
def profile(chromium: playwright.Browser) -> playwright.BrowserContext:
    """What the tabs of a file share: the page's modules, which they need not fetch and compile again."""
    return chromium.new_context()


@pytest.fixture
def visit(chromium: playwright.Browser, profile: playwright.BrowserContext, studio: str) -> Iterator[object]:
    """Opens tabs; when the test ends they are closed and must have stayed quiet."""
    tabs: list[Visitor] = []

    def open_tab(has_touch: bool = False, **options: object) -> Visitor:
        page = chromium.new_page(has_touch=True) if has_touch else profile.new_page()
        tabs.append(Visitor(page, studio, **options))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        if not tab.page.is_closed():
            tab.page.close()
        assert tab.troubles == []
