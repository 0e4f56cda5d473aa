"""Random input everywhere a user can put some: `python -m tests.load.fuzz --count 10000`.

The command line in this process, the endpoints and the page's events over HTTP as the studio itself describes them, and
its routes. Passes when nothing shows a traceback, nothing hangs and the studio still streams. Failing input is made
smaller first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fkv.commands import main as command_line
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.registry import ModelEntry
from fkv.studio.live.limits import Limits
from tests.small_tiny import small_model

from .client import Visitor, settle
from .inside import served
from .table import verdict

SLOW = 60.0
"""Seconds after which an answer counts as a hang."""
LOOK = 0.5
"""Seconds of an event stream that are read."""
LIMITS = Limits(seconds=0.4, turn=0.2, pause=0.2, idle=0.4, lead=0.1)
SHORT = {
    "Chunks (0: endless)": 1,
    "Chunks per stream": 2,
    "Prompts, one per line": "a red ball",
    "prompt": "a red ball",
    "chunks": 3,
}
"""What some fields of the page hold here, by label: it is the input that is tried, not the machine."""
NASTY = (
    "",
    " ",
    "a red ball",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "\x00",
    "\ud800",
    "𝕏" * 30,
    "%s%n{0}",
    "'; DROP TABLE",
    "forcing-kv",
    "full",
    "forcing-kv:retention=",
    "full:x=1",
    "forcing-kv:retention=nan",
    "per-step",
    "sliding-window:window_frames=-1",
    "forcing-kv:segments_per_frame=1e9",
    "recompute",
    "1:full",
    "-1:full",
    "0:forcing-kv:sink_frames=0",
    "NaN",
    "1e999",
    "0",
    "-1",
    "1.5",
    "9" * 400,
    "AB",
    "True",
    "tiny",
    "cpu",
    "meta",
    "a" * 2000,
    "1 say a blue star",
    "2 policy full",
)
words = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
numbers = st.one_of(st.integers(-2, 4), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)

COMMANDS = {
    "stream": (
        "--prompt",
        "--policy",
        "--chunks",
        "--seed",
        "--json",
        "--out",
        "--record",
        "--switch",
        "--say",
        "--recache",
        "--roles",
    ),
    "compare": ("--prompt", "--policies", "--chunks", "--seed", "--json", "--roles"),
    "surgery": ("--prompt", "--policy", "--chunks", "--seed", "--json", "--out", "--flip", "--silence", "--roles"),
    "profile": (
        "--prompts",
        "--seeds",
        "--chunks",
        "--threshold",
        "--skip",
        "--last-k",
        "--queries",
        "--json",
        "--out",
        "--figures",
    ),
    "parity": ("--json",),
    "analyze": ("--out", "--head", "--theme"),
    "fit": ("--resolution", "--precision"),
    "policies": (),
    "models": (),
    "stream ": (),
    "": (),
}
SETUP = ("--model", "--device", "--checkpoint", "--base", "--lora")
lengths = st.one_of(st.sampled_from(("1", "2", "0", "-1", "x", "1.5", "999999999999")), words)
inside = words.filter(lambda word: not word.startswith("/") and ".." not in word)
"""What a command writes to: this runs as whoever starts it, who may overwrite their own files."""
OPTIONS = {
    "--chunks": lengths,
    "--prompts": lengths,
    "--seeds": lengths,
    "--flip": st.one_of(st.just("0.1,2.3"), words),
    "--silence": st.one_of(st.just("0.1"), words),
    **dict.fromkeys(("--json", "--out", "--record", "--figures"), inside),
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(list(COMMANDS)))
    argv = [command, *draw(st.lists(words, max_size=1))]
    for option in draw(st.lists(st.sampled_from((*COMMANDS[command], *SETUP, "--nonsense")), max_size=4)):
        argv += [option, draw(OPTIONS.get(option, words))]
    return argv + (["--chunks", draw(lengths)] if "--chunks" in COMMANDS[command] else [])


def check_command_line(argv: list[str]) -> None:
    """Run it; it returns a status or leaves through argparse, and prints no traceback."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = command_line.main(list(argv))
        except SystemExit as left:
            code = left.code
    assert code in (0, 1, 2) and "Traceback" not in out.getvalue(), (code, out.getvalue()[-2000:])


def posted(value: Any) -> bytes:
    """JSON as a client may write it, lone surrogates included."""
    return json.dumps(value).encode()


class Server:
    """A studio to throw input at. Every check raises AssertionError with what was wrong. `streamed`: events that went
    on for a while."""

    def __init__(self, address: str) -> None:
        self.streamed = 0
        self.address, self.visitor = address, Visitor(address)
        for part in self.visitor.config["components"]:
            part["props"]["value"] = SHORT.get(part["props"].get("label"), part["props"].get("value"))
        self.endpoints = self.visitor.http.get("/gradio_api/info").json()["named_endpoints"]
        self.events = self.visitor.config["dependencies"]
        self.paths = list(self.visitor.http.get("/openapi.json").json()["paths"])

    def good(self, answer: httpx.Response) -> httpx.Response:
        assert "Traceback" not in answer.text and 'File "' not in answer.text, answer.text[:2000]
        return answer

    def read(self, url: str, done: Callable[[str], bool], **query: str) -> None:
        """Read an event stream until it is done or for a while; what the visitor sees of it holds no traceback."""
        until, shown = time.monotonic() + LOOK, 0
        with self.visitor.http.stream("GET", url, params=query) as answer:
            for line in answer.iter_lines():
                assert "Traceback" not in line, line[:2000]
                shown += "process_generating" in line
                if done(line) or time.monotonic() > until:
                    break
        self.streamed += shown > 1

    def call(self, case: tuple[str, list[Any]]) -> None:
        """An endpoint with any data."""
        name, data = case
        answer = self.good(
            self.visitor.http.post(f"/gradio_api/call{name}", content=posted({"data": data}), headers=JSON)
        )
        if answer.status_code == 200:
            url = f"/gradio_api/call{name}/{answer.json()['event_id']}"
            self.read(url, lambda line: line in ("event: complete", "event: error"))

    def event(self, case: tuple[int, list[Any]]) -> None:
        """An event of the page with any data, in a session of its own."""
        index, data = case
        event, session = self.events[index], os.urandom(6).hex()
        body = posted({"data": data, "fn_index": event["id"], "session_hash": session})
        where = "queue/join" if event["queue"] else "run/predict"
        answer = self.good(self.visitor.http.post(f"/gradio_api/{where}", content=body, headers=JSON))
        if answer.status_code == 200 and event["queue"]:
            self.read("/gradio_api/queue/data", lambda line: "process_completed" in line, session_hash=session)

    def route(self, case: tuple[str, list[str], bytes | None]) -> None:
        """Any route with any parts of the address and any body."""
        path, parts, body = case
        for part in parts:
            head, brace, rest = path.partition("{")
            path = (
                head + quote(part, safe="", errors="replace") + rest.partition("}")[2]
                if brace
                else f"{path}?{part and quote(part, errors='replace')}=1"
            )
        if "heartbeat" in path or "reload" in path:
            return  # streams without an end
        with self.visitor.http.stream("GET" if body is None else "POST", path, content=body, headers=JSON) as answer:
            try:
                text = next(answer.iter_text(65536), "")
            except httpx.RemoteProtocolError:
                text = ""  # Gradio breaks an event stream off that it does not know
        assert "Traceback" not in text and "root:" not in text and answer.status_code != 500, (
            path,
            answer.status_code,
            text[:2000],
        )


JSON = {"Content-Type": "application/json"}


def explore(cases: st.SearchStrategy, check: Callable[[Any], None], count: int, start: int) -> None:
    """Try so many cases; raises what the smallest failing one raises."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @seed(start)
    @given(cases)
    def each(case: Any) -> None:
        began = time.monotonic()
        check(case)
        assert time.monotonic() - began < SLOW, f"an answer took {time.monotonic() - began:.0f} s"

    each()


def everything(server: Server, count: int, start: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each way in, by name, with the exploration of its share of `count` inputs."""
    forms = [st.lists(junk, min_size=len(event["inputs"]), max_size=len(event["inputs"])) for event in server.events]
    calls = st.sampled_from(list(server.endpoints)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.lists(junk, min_size=0, max_size=1 + len(server.endpoints[name]["parameters"]))
        )
    )
    likely = st.integers(0, len(forms) - 1).flatmap(
        lambda i: st.tuples(st.just(i), st.one_of(forms[i], _nearly(server, i)))
    )
    routes = st.tuples(
        st.sampled_from(server.paths), st.lists(words, max_size=4), st.one_of(st.none(), junk.map(posted))
    )
    yield "command line", lambda: explore(command_lines(), check_command_line, int(0.4 * count), start)
    yield "endpoints", lambda: explore(calls, server.call, int(0.15 * count), start)
    yield "page events", lambda: explore(likely, server.event, int(0.25 * count), start)
    yield "routes", lambda: explore(routes, server.route, int(0.2 * count), start)


def _nearly(server: Server, index: int) -> st.SearchStrategy[list[Any]]:
    """What the page would send, or with one value that it would not."""
    values = server.visitor.form(server.events[index])
    if not values:
        return st.just([])
    changes = st.tuples(st.integers(0, len(values) - 1), junk)
    return st.one_of(
        st.just(values), changes.map(lambda change: [*values[: change[0]], change[1], *values[change[0] + 1 :]])
    )


@contextlib.contextmanager
def playground(model: VideoModel) -> Iterator[Server]:
    """A studio and a command line with a small model, in an empty folder, that give up early."""
    before, tiny = os.getcwd(), registry.MODELS["tiny"]
    registry.MODELS["tiny"] = ModelEntry("tiny", "a stand-in", lambda device: model)
    with served(model, LIMITS) as address, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Server(address)
        finally:
            os.chdir(before)
            registry.MODELS["tiny"] = tiny


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    args = parser.parse_args(argv)
    checks, figures = {}, {}
    with playground(replace(small_model(), examples=("a red ball",))) as server:
        for name, run in everything(server, args.count, args.seed):
            began = time.monotonic()
            try:
                run()
                checks[f"{name}: no traceback, no hang"] = True
            except (Exception, ExceptionGroup) as error:
                checks[f"{name}: {error!r}"[:1500]] = False
                print("\n".join(getattr(error, "__notes__", ())), file=sys.stderr)
            figures[f"{name}, seconds"] = time.monotonic() - began
        figures["page events that streamed"] = server.streamed
        health = settle(server.visitor, 60)
        with Visitor(server.address) as visitor, closing(visitor.go(chunks=1)) as manifests:
            checks["it still streams"] = [manifest["state"] for manifest in manifests][-1] == "done"
        checks["nothing runs or waits"] = not (health["running"] or health["waiting"])
    return verdict({"inputs": args.count, **figures, "threads left": threading.active_count()}, checks)


if __name__ == "__main__":
    sys.exit(main())
