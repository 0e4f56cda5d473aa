"""Programs of their own: limits of the process, the log, signals, folders, files, browsers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx

from fkv import roles
from tests.load.client import ROOT, Studio, Visitor, free_port, studio

from . import Attempt, Target, check
from .requests import answers

SECRET = 'a secret\n{"event": "stream", "logger": "fkv.streams"}'
HOSTILE_ROLES = (
    *(
        f'{{"num_heads": {value}, "static_heads": [[0]]}}'
        for value in ('"8"', "[8]", "Infinity", "300000000", "1e400", "-1")
    ),
    *(
        f'{{"num_heads": {value}, "layers": [{{"static_head": [0], "dynamic_head": []}}]}}'
        for value in ("true", "3e8", "1" * 5000)
    ),
    "[" * 200_000,
    '{"num_heads": 1, "static_heads": [' + "[0]," * 100_000 + "[0]]}",
)


@check("hostile head roles are refused in a sentence", own=True)
def head_roles(target: Target) -> Iterator[Attempt]:
    for number, text in enumerate(HOSTILE_ROLES):
        file = target.folder / f"{number}.json"
        file.write_text(text)
        began = time.monotonic()
        try:
            roles.load(file)
            held = False
        except roles.RolesError:
            held = time.monotonic() - began < 10
        yield text[:60], held


@check("few descriptors: whoever asks is served, and what is refused costs one line a minute", own=True)
def descriptors(target: Target) -> Iterator[Attempt]:
    few = Studio(target.folder, wrapper=("prlimit", "--nofile=160:160"))
    try:
        few.wait()
        there = Target(few.address, target.folder)
        with ExitStack() as stack:
            for number in range(220):
                stack.enter_context(closing(there.connect(b"GET / HTTP/1.1\r\nHost: a\r\n")))
                if number % 20 == 19:
                    yield answers(there)
        lines = few.log.read_text().count("\n")
        yield f"{lines} lines in the log", lines < 10 and not few.errors()
    finally:
        few.end()


@check("slow requests are ended", own=True)
def slow(target: Target) -> Iterator[Attempt]:
    parts = (
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n",
    )
    with ExitStack() as stack:
        held = [stack.enter_context(closing(target.connect(part))) for part in parts * 10]
        began = time.monotonic()
        for connection in held:
            connection.settimeout(60)
            try:
                while connection.recv(1 << 16):
                    pass
            except OSError:
                pass
            seconds = time.monotonic() - began
            yield f"ended after {seconds:.0f} s", seconds < 45


@check("bounds hold for programs and comparisons", own=True)
def bounds(target: Target) -> Iterator[Attempt]:
    with studio("--most-kv", "1", "--longest-run", "8") as bounded, Visitor(bounded.address) as visitor:
        for name, data in (
            ("generate_clip", ["a red ball bouncing over the hills", "full", 120, 0]),
            ("generate_clip", ["a red ball bouncing over the hills", "sliding-window", 120, 0]),
            ("compare", ["full,per-step", "a red ball bouncing over the hills", 60, 0]),
            ("profile", ["a red ball\n" * 8, 14, 0.8, 0]),
        ):
            event = next(each for each in visitor.config["dependencies"] if each["api_name"] == name)
            visitor.join(event, data).raise_for_status()
            began = time.monotonic()
            try:
                told = str(list(visitor.outputs())[-1])[:80]
            except RuntimeError as error:
                told = str(error)
            seconds = time.monotonic() - began
            yield f"{name} after {seconds:.0f} s: {told}", seconds < 30
        ended = [line["ended"] for line in bounded.lines() if line.get("event") == "stream"]
        yield f"ended: {ended}", len(ended) == 4 and set(ended) <= {"kv limit", "time limit"}


@check("the log holds no typed text and no forged line", own=True)
def log(target: Target) -> Iterator[Attempt]:
    with studio() as logged, Visitor(logged.address) as visitor:
        for event in visitor.config["dependencies"]:
            data = [SECRET] * len(event["inputs"])
            body = {
                "data": data[: random.randrange(len(data) + 1)],
                "fn_index": event["id"],
                "session_hash": visitor.session,
            }
            where = "queue/join" if event["queue"] else "run/predict"
            visitor.http.post(f"/gradio_api/{where}", json=body, params={"theme": SECRET, "seed": SECRET})
            visitor.http.get(f"/stage/{SECRET.encode().hex()}/0")
        time.sleep(5)
        text = logged.log.read_text()
        yield "typed text", "a secret" not in text
        lines = [line for line in text.splitlines() if line and not line.startswith("*")]
        yield (
            f"{len(lines)} lines are one object each",
            all(line.startswith("{") and line.endswith("}") for line in lines),
        )


@check("an interrupt in the first second prints nothing and leaves nothing", own=True)
def interrupts(target: Target) -> Iterator[Attempt]:
    for _ in range(target.count(38)):
        delay = random.uniform(0.15, 1.2)
        folder = target.folder / "interrupted"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "app.py", "--port", str(free_port())]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
        yield (
            f"after {delay:.2f} s: {process.returncode} {said!r}",
            process.returncode in (130, -2) and not said and not list(folder.iterdir()),
        )


@check("any signal during a run ends the studio within 5 s, without leftovers", own=True)
def signals(target: Target) -> Iterator[Attempt]:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        with studio() as started, Visitor(started.address) as visitor, closing(visitor.go(chunks=0)) as shown:
            next(manifest for manifest in shown if manifest.get("chunks"))
            began = time.monotonic()
            started.end(number)
            seconds = time.monotonic() - began
            yield (
                f"{number.name}: {seconds:.1f} s, {started.folders}",
                seconds < 5 and not started.folders and not started.errors(),
            )


@check("a killed studio starts again, and a second one on its port says what is wrong", own=True)
def killed(target: Target) -> Iterator[Attempt]:
    folder = target.folder / "killed"
    folder.mkdir()
    first = Studio(folder)
    first.wait()
    command = [sys.executable, "app.py", "--port", first.address.rpartition(":")[2]]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    yield (
        second.stderr,
        second.returncode == 2 and "cannot listen" in second.stderr and "Traceback" not in second.stderr,
    )
    first.end(signal.SIGKILL)
    left = [path for path in folder.iterdir() if path.name.startswith("forcing-kv-studio-")]
    again = Studio(folder)
    try:
        again.wait()
        yield f"{left} are gone", not any(path.exists() for path in left)
    finally:
        again.end()


@check("a temporary folder that cannot be written is a sentence", own=True)
def no_folder(target: Target) -> Iterator[Attempt]:
    environment = {**os.environ, "TMPDIR": "/nonexistent", "HOME": "/nonexistent"}
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", UNWRITABLE]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    yield told.stderr[-300:], told.returncode == 2 and "Traceback" not in told.stderr and told.stderr.count("\n") == 1


UNWRITABLE = (
    "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere']; "
    "from fkv.runtime import studio; raise SystemExit(studio())"
)


@check("a studio whose files are read-only streams", own=True)
def read_only(target: Target) -> Iterator[Attempt]:
    folder = Path(target.folder, "read-only")
    folder.mkdir()
    folder.chmod(0o777)
    one = Studio(folder, environment={"HOME": str(folder)}, wrapper=("setpriv", "--reuid=65534", "--clear-groups"))
    try:
        one.wait()
        with Visitor(one.address) as visitor, closing(visitor.go(chunks=2)) as shown:
            *_, last = shown
        yield last["text"], last["state"] == "done" and not one.errors()
    finally:
        one.end()


@check("20 browsers at once are served, and none shows an error", own=True)
def browsers(target: Target) -> Iterator[Attempt]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        pages = []
        for number in range(20):
            page = browser.new_context().new_page()
            troubles: list[str] = []
            page.on("pageerror", lambda error, troubles=troubles: troubles.append(str(error)))
            page.goto(f"{target.address}/?seed={number}&length=1&view=A", timeout=120_000)
            pages.append((page, troubles))
        for page, _ in pages:
            page.get_by_role("button", name="Go live").first.click(timeout=120_000)
        yield answers(target, 20)
        for page, troubles in pages:
            yield f"{troubles}", not troubles
            page.context.close()
        browser.close()


@check("what was written at first is gone when the studio ends", own=True)
def leftovers(target: Target) -> Iterator[Attempt]:
    with studio() as one:
        httpx.get(one.address, trust_env=False).raise_for_status()
        one.end()
        yield f"{one.folders}", not one.folders
