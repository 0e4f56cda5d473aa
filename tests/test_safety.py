"""Where visitors do not belong: other visitors' frames, the file system, the network, the page's HTML."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings

from fkv import roles
from fkv.analysis import export, record
from fkv.analysis.figures.heads import HeadMap
from fkv.models.checkpoints import CheckpointError, read
from fkv.policies import parse
from fkv.stream import Stream, check_prompt
from fkv.studio.media.protocol import unpack
from fkv.studio.serving import middleware
from fkv.video import Mp4Writer
from tests.load import fuzz
from tests.load.client import ROOT, Studio, Visitor, settle

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
OUTSIDE = (
    "README.md",
    "app.py",
    "/etc/passwd",
    "../../etc/passwd",
    str(ROOT / "README.md"),
    "assets/tiny/roles.json",
    "~/.ssh/id_rsa",
    ".",
)


def raw(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and text of a path that is sent as it is written, dots and all."""
    url = httpx.URL(address)
    with closing(socket.create_connection((url.host, url.port), timeout=20)) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode(errors="replace")
    return int(answer.split(" ", 2)[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    "route",
    [
        "/gradio_api/file={}",
        "/gradio_api/file/{}",
        "/stage/{}/0",
        "/stage/KEY/{}",
        "/stage/KEY/../{}",
        "/static/../{}",
        "/assets/{}",
        "/{}",
        "/theme.css/../../{}",
        "/gradio_api/custom_component/{}/x/y/z",
        "/gradio_api/deep_link?session_hash={}",
    ],
)
def test_no_route_leads_to_a_file_outside(address, route, outside):
    for written in (
        outside,
        quote(outside, safe=""),
        outside.replace("/", "%2f").replace(".", "%2e"),
        outside.replace("..", "....//.."),
    ):
        status, text = raw(address, route.format(written))
        assert status in (400, 403, 404, 405, 422) or written in (".", "%2e"), (route, written, status)
        assert "root:" not in text and "python app.py" not in text


SHUT = (
    "monitoring",
    "monitoring/summary",
    "login",
    "gradio_api/runs",
    "gradio_api/run-history/buckets",
    "gradio_api/vibe-code",
    "gradio_api/proxy=https://example.hf.space/",
    "gradio_api/file=http://127.0.0.1/",
    "gradio_api/dev/reload",
    "gradio_api/deep_link",
    "gradio_api/process_recording",
    "gradio_api/profiling/traces",
    "gradio_api/stream/x/1/2/playlist.m3u8",
)


@pytest.mark.parametrize("path", SHUT)
def test_routes_that_the_studio_does_not_use_are_shut(address, path):
    assert raw(address, f"/{path}") == (404, middleware.NOTHING) == raw(address, f"/{path}", "POST")


def test_bodies_and_uploads_are_bounded(visitor, monkeypatch):
    assert visitor.http.post("/gradio_api/queue/join", content=b" " * (middleware.MAX_BODY + 1)).status_code == 413
    endless = (b" " * 65536 for _ in range(64))
    assert visitor.http.post(
        "/gradio_api/run/predict", content=endless, headers={"Content-Type": "application/json"}
    ).status_code in (
        400,
        413,
    )


@pytest.mark.parametrize("under_way", [0, 1])
def test_uploads_under_way_count_in_full_before_they_are_stored(tmp_path, monkeypatch, under_way):
    async def whether_one_more_fits() -> bool:
        uploads = middleware.Uploads(tmp_path)
        async with AsyncExitStack() as stack:
            for _ in range(under_way):
                await stack.enter_async_context(uploads.room())
            return await stack.enter_async_context(uploads.room())

    (tmp_path / "clip.mp4").write_bytes(b"0")
    monkeypatch.setattr(middleware, "MAX_UPLOADS", middleware.MAX_UPLOAD + 1)
    assert asyncio.run(whether_one_more_fits()) == (not under_way)


@pytest.mark.parametrize(("size", "status"), [(2, 413), (1, 507)])
def test_an_upload_that_is_too_large_or_has_no_room_is_refused(tmp_path, monkeypatch, size, status):
    async def app(scope, receive, send):
        raise AssertionError("the application never sees it")

    async def told(message):
        sent.append(message.get("status"))

    sent: list[int | None] = []
    monkeypatch.setattr(middleware, "MAX_UPLOADS", middleware.MAX_UPLOAD)
    (tmp_path / "clip.mp4").write_bytes(b"0")
    headers = [(b"content-length", str(size * middleware.MAX_UPLOAD).encode())]
    scope = {"type": "http", "path": "/gradio_api/upload", "headers": headers, "method": "POST", "query_string": b""}
    asyncio.run(middleware.Gate(app, tmp_path, uploads=True)(scope, None, told))
    assert sent == [status, None]


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_has_begun_is_not_begun_again(begun, tmp_path):
    async def broken(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200})
        raise RuntimeError

    async def told(message):
        sent.append(message.get("status"))

    sent: list[int | None] = []
    scope = {"type": "http", "path": "/", "headers": [], "method": "GET"}
    asyncio.run(middleware.Gate(broken, tmp_path)(scope, None, told))
    assert sent == [200 if begun else 400, None], "a start and an end"


def test_a_second_visitor_reaches_nothing_of_the_first(address):
    with Visitor(address) as first, Visitor(address) as second:
        with closing(first.go(chunks=0, stream="A")) as manifests:
            seen = next(manifest for manifest in manifests if manifest.get("chunks"))
            key = seen["run"]
            assert len(key) >= 20 and key not in second.http.get("/config").text + second.http.get("/healthz").text
            for guess in (
                key[:-1],
                key.swapcase(),
                key[::-1],
                "A" * len(key),
                second.session,
                first.session,
                "",
                "*",
                "%00",
            ):
                assert second.http.get(f"/stage/{guess}/0").status_code == 404
            for url in (
                f"/gradio_api/queue/data?session_hash={second.session}",
                "/gradio_api/call/generate_clip/0123456789abcdef",
            ):
                with second.http.stream("GET", url) as answer:
                    assert answer.status_code == 404 or key not in next(answer.iter_text(), "")
            for press in ("fkv-stop", "fkv-pause", "fkv-change"):
                second.press(press)
            body = {"event_id": "", "session_hash": second.session, "fn_index": first.event("fkv-go")["id"]}
            second.http.post("/gradio_api/cancel", json=body)
            later = next(manifest for manifest in manifests if manifest["chunks"] > seen["chunks"] + 1)
            assert later["state"] == "live" and later["run"] == key
        settle(second)
        gone = first.chunk(key, 0)
        second.press("fkv-stop")
        with closing(first.go(chunks=1)) as again:
            assert next(again)["run"] != key
        assert gone.status_code in (200, 404) and second.chunk(key, 0).status_code == 404, (
            "a new run forgets what the last one showed"
        )


def test_a_prompt_stays_text_in_the_chunk_and_in_hints(visitor):
    with closing(visitor.go(prompt=SCRIPT, chunks=1)) as manifests:
        shown = list(manifests)
    facts, _ = unpack(visitor.chunk(shown[-1]["run"], 0).content)
    assert facts["prompt"] == SCRIPT and shown[-1]["state"] == "done"
    hints = [event for event in visitor.config["dependencies"] if len(event["inputs"]) == 1 and not event["queue"]]
    for event in hints:
        body = {"data": [SCRIPT], "fn_index": event["id"], "session_hash": visitor.session}
        assert "<img" not in visitor.http.post("/gradio_api/run/predict", json=body).text.replace("\\u003c", "<")


SCRIPTS = ROOT / "assets" / "studio"


@pytest.mark.parametrize("name", [str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.js")])
def test_page_scripts_write_text_never_html(name):
    text = (SCRIPTS / name).read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert way not in text


class Elements(HTMLParser):
    """What a browser would build: counts of tags, and attributes that run code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_exported_pages_keep_prompts_as_text(small, tmp_path):
    def exported(prompt: str, model: str, folder: Path) -> Elements:
        stream = Stream(small, parse("forcing-kv:segments_per_frame=2"), prompt, 0)
        made = record.capture(stream, 2)
        run = record.Run(made.settings | {"model": model, "device": prompt}, made.chunks, (), made.roles)
        page = next(path for path in export.export_run(run, folder) if path.suffix == ".html").read_text()
        assert "http://" not in page.partition("<body>")[0]
        return Elements(page)

    plain, hostile = exported("a red ball", "small", tmp_path / "a"), exported(SCRIPT, SCRIPT, tmp_path / "b")
    assert hostile.tags == plain.tags and hostile.handlers == plain.handlers


def test_names_in_head_roles_stay_text_in_figures(shipped, tmp_path):
    named = replace(
        shipped.roles, provenance=shipped.roles.provenance | {"model": rf"{SCRIPT} $\frac{{", "last_k": [SCRIPT]}
    )
    view = HeadMap(named)
    assert "<script>alert" not in view.plotly().to_json() and "<img" not in view.to_html().partition("<body>")[2]
    assert r"$\frac{" in next(path for path in view.save(tmp_path) if path.suffix == ".svg").read_text()


def test_a_video_file_does_not_carry_the_prompt(small, tmp_path):
    stream = Stream(small, parse("full"), SCRIPT, 0)
    with Mp4Writer(tmp_path / "v.mp4", 16) as out:
        out.write(stream.step().video)
    assert b"alert" not in (tmp_path / "v.mp4").read_bytes()


class Payload:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["FKV_PAYLOAD"],)


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.safetensors", "roles.json"])
def test_a_malicious_pickle_is_refused_under_any_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv("FKV_PAYLOAD", str(tmp_path / "ran"))
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"model": Payload()}))
    with pytest.raises(ValueError) as refused:
        (roles.load if path.suffix == ".json" else read)(path)
    assert isinstance(refused.value, (CheckpointError, roles.RolesError)) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 100_000, "nested|read"), (" " * 100_001, "larger"), ('{"schema": 1', "read"), ("[]", "schema")],
)
def test_records_are_bounded_and_read_without_surprise(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr(record, "MAX_JSON", 100_000)
    (tmp_path / "record.json").write_text(text)
    record.save_file({}, tmp_path / "record.safetensors")
    with pytest.raises(ValueError, match=words):
        record.load(tmp_path)


@pytest.mark.parametrize("prompt", ["a \x00 ball", "\ud800", None, 3, ["a"], "\x1b[31mred"])
def test_prompts_that_are_no_text_are_refused(prompt):
    with pytest.raises(ValueError, match="text"):
        check_prompt(prompt)


def test_random_input_shows_no_traceback(small):
    with fuzz.playground(small) as server:
        for _, run in fuzz.everything(server, 60, start=1):
            run()
        assert server.visitor.health()["status"] == "ok"


@settings(max_examples=100, deadline=None, database=None)
@given(fuzz.words)
def test_any_policy_text_is_a_policy_or_a_sentence(text):
    try:
        parse(text)
    except ValueError as error:
        assert str(error)


GUARD = """
import os, socket
connect, resolve = socket.socket.connect, socket.getaddrinfo
def note(host):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open(os.environ["FKV_CALLS"], "a") as out: out.write(f"{host}\\n")
        raise OSError("no network here")
def guarded(self, address): note(address[0] if isinstance(address, tuple) else None); return connect(self, address)
def resolved(host, *rest, **more):
    note(host.decode() if isinstance(host, bytes) else host)
    return resolve(host, *rest, **more)
socket.socket.connect, socket.getaddrinfo = guarded, resolved
"""


def test_the_app_calls_nobody_and_leaves_nothing_when_told_to_end_mid_stream(tmp_path):
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "tmp").mkdir()
    calls = tmp_path / "calls"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
    }
    studio = Studio(
        tmp_path / "tmp", environment={**kept, "PYTHONPATH": str(tmp_path / "guard"), "FKV_CALLS": str(calls)}
    )
    try:
        studio.wait()
        with Visitor(studio.address) as visitor:
            assert visitor.config["analytics_enabled"] is False
            visitor.http.get("/").raise_for_status()
            with closing(visitor.go(chunks=0)) as manifests:
                next(manifest for manifest in manifests if manifest.get("chunks"))
                assert list(studio.folder.glob("forcing-kv-studio-*"))
                assert studio.end(signal.SIGTERM) == 0
    finally:
        studio.end(signal.SIGKILL)
    assert not calls.exists(), calls.read_text()
    assert not list(studio.folder.glob("forcing-kv-studio-*")) and not studio.errors()


def test_one_temporary_folder_holds_what_is_written(address):
    assert tempfile.gettempdir() == os.environ["GRADIO_TEMP_DIR"]
    assert json.loads(raw(address, "/healthz")[1])["status"] == "ok"


def test_every_requirement_is_bounded_and_states_a_licence():
    listed = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "supply.py"), "--no-audit"], capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    assert "gradio" in listed.stdout and "Apache" in listed.stdout
