"""The studio in WebKit and in Firefox: one walk through it in each, where the browser is installed.

Both are driven over what they speak themselves, so no driver is downloaded: WebKit over WebDriver (Debian's
`webkit2gtk-driver` and `xvfb`), Firefox over WebDriver BiDi (`firefox-esr`).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import free_port

PATIENCE = 40.0  # seconds until a wait fails
PHONE = 390  # pixels
MINI_BROWSER = next(Path("/usr/lib").glob("*/webkit2gtk-4*/MiniBrowser"), None)

Evaluate = Callable[[str], Any]
"""Evaluates a JavaScript expression on the page, which may be a promise."""


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block runs."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | environment, **quiet)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def patiently(attempt: Callable[[], Any]) -> Any:
    """What an attempt returns once it returns something; errors of a browser that starts count as nothing."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := attempt():
                return found
        except (OSError, httpx.HTTPError):
            pass
        assert time.monotonic() < end, "the browser did not get there in time"
        time.sleep(0.2)


@contextmanager
def webkit(address: str, width: int, tmp_path: Path) -> Iterator[Evaluate]:
    """A page in WebKit's MiniBrowser, over WebDriver."""
    if not (MINI_BROWSER and shutil.which("WebKitWebDriver") and shutil.which("Xvfb")):
        pytest.skip("no WebKit here: apt-get install webkit2gtk-driver xvfb")
    port, display = free_port(), f":{free_port()}"
    options = {"binary": str(MINI_BROWSER), "args": ["--automation"]}
    capabilities = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
    home = {"DISPLAY": display, "HOME": str(tmp_path), "WEBKIT_DISABLE_COMPOSITING_MODE": "1"}
    with (
        running("Xvfb", display, "-screen", "0", "1600x1200x24"),
        running("WebKitWebDriver", f"--port={port}", **home),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as driver,
    ):

        def begin() -> str:
            answer = driver.post("/session", json=capabilities).json()["value"]
            return answer.get("sessionId", "")

        session = patiently(begin)

        def post(what: str, **body: Any) -> Any:
            answer = driver.post(f"/session/{session}/{what}", json=body)
            assert answer.is_success, answer.text
            return answer.json()["value"]

        def evaluate(expression: str) -> Any:
            script = (
                f"const done = arguments[0]; Promise.resolve({expression}).then(done, (error) => done(`${{error}}`))"
            )
            return post("execute/async", script=script, args=[])

        try:
            post("timeouts", script=int(1000 * PATIENCE))
            post("window/rect", width=width, height=1000, x=0, y=0)
            post("url", url=address)
            yield evaluate
        finally:
            driver.delete(f"/session/{session}")


@contextmanager
def firefox(address: str, width: int, tmp_path: Path) -> Iterator[Evaluate]:
    """A page in Firefox, over WebDriver BiDi."""
    binary = shutil.which("firefox-esr") or shutil.which("firefox")
    if not binary:
        pytest.skip("no Firefox here: apt-get install firefox-esr")
    connect = pytest.importorskip("websockets.sync.client").connect
    port = free_port()
    command = [binary, "--headless", "--no-remote", "--profile", str(tmp_path), f"--remote-debugging-port={port}"]
    with ExitStack() as stack:
        stack.enter_context(running(*command, HOME=str(tmp_path)))
        open_socket = lambda: connect(f"ws://127.0.0.1:{port}/session", max_size=None, open_timeout=PATIENCE)  # noqa: E731
        socket = stack.enter_context(patiently(open_socket))
        numbers = itertools.count(1)

        def send(method: str, **params: Any) -> Any:
            number = next(numbers)
            socket.send(json.dumps({"id": number, "method": method, "params": params}))
            while True:
                answer = json.loads(socket.recv(timeout=PATIENCE))
                if answer.get("id") == number:
                    assert answer["type"] == "success", answer
                    return answer["result"]

        send("session.new", capabilities={})
        tab = send("browsingContext.getTree")["contexts"][0]["context"]
        send("browsingContext.setViewport", context=tab, viewport={"width": width, "height": 1000})
        send("browsingContext.navigate", context=tab, url=address, wait="complete")

        def evaluate(expression: str) -> Any:
            written = f"Promise.resolve({expression}).then(JSON.stringify)"
            answer = send("script.evaluate", expression=written, target={"context": tab}, awaitPromise=True)
            assert answer["type"] == "success", answer
            return json.loads(answer["result"].get("value", "null"))

        yield evaluate


@pytest.mark.parametrize("engine", [webkit, firefox])
def test_a_walk_through_the_studio(engine, studio, tmp_path):
    with engine(f"{studio}/?length=3", PHONE, tmp_path) as evaluate:

        def until(condition: str) -> None:
            patiently(lambda: evaluate(f"Boolean({condition})"))

        def click(selector: str) -> None:
            until(f"document.querySelector('{selector}')")
            evaluate(f"(document.querySelector('{selector}').click(), true)")

        until("window.fkvStudio?.state === 'recorded' && window.fkvStudio.painted.A > 3")
        assert evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
        until("document.querySelector('#fkv-choices input[type=number]').value === '3'")
        click("#fkv-go")
        until("window.fkvStudio.state === 'done' && !window.fkvStudio.player.loop && window.fkvStudio.painted.B > 3")
        until("window.fkvStudio.player.rounds.length === 3")
        tabs = "[...document.querySelectorAll('[role=tab]')]"
        evaluate(f"({tabs}.find((tab) => /Heads/.test(tab.textContent)).click(), true)")
        until("document.querySelectorAll('.fkv-cell').length === 64")
        click(".fkv-cell:nth-of-type(9)")
        until("document.querySelector('.fkv-detail h3').textContent.startsWith('Layer 1, head 0')")
        click("[data-fkv=talk]")
        until("document.body.classList.contains('fkv-talk') && document.querySelector('.fkv-screen').checkVisibility()")
        click(".fkv-leave")
        click("#fkv-record button.label-wrap")
        click("#fkv-film")
        until("document.querySelector('#fkv-fetch')?.textContent.includes('Download MP4')")
        note = (
            "HTMLAnchorElement.prototype.click = function () { window.taken = this.href; }"  # and no dialog to save it
        )
        evaluate(f"({note}, true)")
        click("#fkv-fetch")
        until("window.taken")
        data = "fetch(window.taken).then((answer) => answer.arrayBuffer())"
        assert bytes(evaluate(f"{data}.then((data) => [...new Uint8Array(data.slice(4, 8))])")) == b"ftyp"
