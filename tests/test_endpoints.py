"""What programs may call, through the real server: Gradio's client, and tools of an MCP server where that package is
installed."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from queue import Queue

import av
import gradio_client
import httpx
import pytest
from gradio_client.exceptions import AppError

from fkv import roles
from fkv.policies import POLICIES
from fkv.stream import Stream
from fkv.studio import launch
from fkv.studio.live import disconnect, telemetry
from fkv.studio.live.limits import Limits
from fkv.studio.server import serve

NAMES = ["/generate_clip", "/compare", "/profile"]
PROMPT = "a red ball bouncing over the sea by day"


@pytest.fixture(scope="module")
def address(toy) -> Iterator[str]:
    with socket.socket() as probe, pytest.MonkeyPatch.context() as patch:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        patch.setenv("GRADIO_TEMP_DIR", "")
        patch.setattr(tempfile, "tempdir", tempfile.gettempdir())
        model = replace(toy, examples=(PROMPT,))
        page = serve(model, "127.0.0.1", port, limits=Limits(), mcp=find_spec("mcp") is not None, block=False)
        yield f"http://127.0.0.1:{port}"
        page.close()


@pytest.fixture(scope="module")
def client(address) -> gradio_client.Client:
    return gradio_client.Client(address, verbose=False)


def test_these_and_no_others_are_public(client):
    named = client.view_api(return_format="dict", print_info=False)
    assert list(named["named_endpoints"]) == NAMES and named["unnamed_endpoints"] == {}


def test_a_clip_is_a_video_and_its_figures(client):
    path, figures = client.predict(
        prompt=PROMPT, policy="sliding-window:window_frames=4", chunks=2, seed=3, api_name="/generate_clip"
    )
    with av.open(path) as video:
        assert sum(1 for _ in video.decode(video=0)) == 24
    assert (figures["policy"], figures["seed"], len(figures["chunks"])) == ("sliding-window", 3, 2)


def test_a_comparison_gives_figures_per_policy_and_per_stream(client):
    figures = client.predict(
        policies="full,forcing-kv:retention=0.5", prompt=PROMPT, chunks=2, seed=3, api_name="/compare"
    )
    assert list(figures["policies"]) == ["full", "forcing-kv:retention=0.5"] and figures["reference"] == "full"
    assert figures["ended"] == "finished" and figures["policies"]["full"]["ratio_denoise"] == 1
    assert [len(stream["chunks"]) for stream in figures["streams"]] == [2, 2]
    _, clip = client.predict(prompt=PROMPT, policy="full", chunks=2, seed=3, api_name="/generate_clip")
    assert figures["streams"][0]["frames_sha256"] == clip["frames_sha256"]


def test_a_profile_is_a_roles_file(client):
    told = client.predict(prompts=f"{PROMPT}\na blue star", chunks=3, threshold=0.5, seed=0, api_name="/profile")
    found = roles.from_json(told)
    assert (len(found.static), found.num_heads, told["threshold"], len(told["prompts"])) == (3, 4, 0.5, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"api_name": "/generate_clip", "prompt": PROMPT, "policy": "nonsense"}, "There is no policy 'nonsense'"),
        (
            {"api_name": "/generate_clip", "prompt": PROMPT, "chunks": 121},
            "number of chunks must be a whole number from 1 to 120, not 121",
        ),
        ({"api_name": "/generate_clip", "prompt": " "}, "The prompt is empty"),
        ({"api_name": "/generate_clip", "prompt": PROMPT, "seed": -1}, "The seed must be"),
        ({"api_name": "/compare", "policies": "full"}, "number of policies must be a whole number from 2 to 8, not 1"),
        (
            {"api_name": "/compare", "policies": "full,per-step,recompute,forcing-kv,no-anchor", "chunks": 60},
            "300 chunks in all; at most 240",
        ),
        (
            {"api_name": "/profile", "prompts": "\n".join("abcdefghi")},
            "number of prompts must be a whole number from 1 to 8, not 9",
        ),
        ({"api_name": "/profile", "chunks": 2}, "number of chunks must be a whole number from 3 to 14, not 2"),
        ({"api_name": "/profile", "threshold": 2}, "The threshold must"),
    ],
)
def test_a_bad_call_gets_a_sentence(client, call, words):
    with pytest.raises(AppError, match=words):
        client.predict(**call)


CALLS = {
    "clip": ("/generate_clip", [PROMPT, "full", 120, 0]),
    "compare": ("/compare", ["full,per-step", PROMPT, 60, 0]),
    "profile": ("/profile", ["\n".join([PROMPT] * 8), 14, 0.8, 0]),
}
"""By kind, as it is logged: an endpoint and the longest that may be asked of it."""


@pytest.fixture
def slowly(monkeypatch) -> None:
    """Every chunk takes a tenth of a second at least, so that the longest calls take long."""
    step = Stream.step
    monkeypatch.setattr(Stream, "step", lambda self, *args: (time.sleep(0.1), step(self, *args))[1])


@pytest.fixture
def ended(monkeypatch, caplog) -> Queue[tuple[str, str]]:
    """Kind and ending of every call, as they are logged."""
    told: Queue[tuple[str, str]] = Queue()
    handler = logging.Handler()
    handler.emit = lambda record: told.put((record.facts["kind"], record.facts["ended"]))
    monkeypatch.setattr(telemetry.log, "handlers", [handler])
    caplog.set_level(logging.INFO, telemetry.log.name)
    return told


@contextmanager
def calling(http: httpx.Client, kind: str) -> Iterator[None]:
    """Call an endpoint and listen for the answer until the block ends, which begins once the call runs or stands in
    line."""
    name, data = CALLS[kind]
    before = busy(http)
    event = http.post(f"/gradio_api/call{name}", json={"data": data}).raise_for_status().json()["event_id"]
    with http.stream("GET", f"/gradio_api/call{name}/{event}"):
        settle(http, before + 1)
        yield


def busy(http: httpx.Client) -> int:
    """How many run and wait."""
    health = http.get("/healthz").json()
    return health["running"] + health["waiting"]


def settle(http: httpx.Client, count: int) -> None:
    """Wait until so many run and wait."""
    deadline = time.monotonic() + 60
    while busy(http) != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", CALLS)
def test_a_caller_who_leaves_ends_the_run(address, slowly, ended, kind):
    with httpx.Client(base_url=address, timeout=120) as http:
        with calling(http, kind):
            pass
        assert ended.get(timeout=60) == (kind, "left")
        settle(http, 0)


def test_a_caller_who_leaves_the_line_gives_the_place_back(address, slowly, ended):
    with httpx.Client(base_url=address, timeout=120) as http, calling(http, "profile"):
        with calling(http, "clip"), calling(http, "clip"):
            settle(http, 3)
        assert [ended.get(timeout=60), ended.get(timeout=60)] == [("clip", "left")] * 2
        assert busy(http) == 1
    assert ended.get(timeout=60) == ("profile", "left")


@pytest.mark.parametrize("kind", CALLS)
def test_a_caller_who_never_listens_is_not_waited_for(address, slowly, ended, monkeypatch, kind):
    monkeypatch.setattr(disconnect, "PATIENCE", 0.5)
    name, data = CALLS[kind]
    with httpx.Client(base_url=address, timeout=120) as http:
        event = http.post(f"/gradio_api/call{name}", json={"data": data}).raise_for_status().json()["event_id"]
        assert ended.get(timeout=60) == (kind, "left")
        settle(http, 0)
        assert "client disconnected" in http.get(f"/gradio_api/call{name}/{event}").text  # who comes too late is told


def test_a_caller_who_listens_is_waited_for(address, slowly, ended, monkeypatch):
    with httpx.Client(base_url=address, timeout=120) as http:
        body = {"data": [PROMPT, "full", 8, 0], "session_hash": "own"}
        event = http.post("/gradio_api/call/generate_clip", json=body).raise_for_status().json()["event_id"]
        with http.stream("GET", f"/gradio_api/call/generate_clip/{event}") as answer:
            busy(http)  # by now the server has come round to the stream
            monkeypatch.setattr(disconnect, "PATIENCE", 0.0)
            assert b"event: complete" in answer.read()
    assert ended.get(timeout=60) == ("clip", "finished")


def test_a_cancelled_call_ends(client, slowly, ended):
    name, data = CALLS["clip"]
    job = client.submit(*data, api_name=name)
    with httpx.Client(base_url=client.src, timeout=120) as http:
        settle(http, 1)
        while not job.communicator.event_id:  # the client knows what to cancel once the server's answer is back
            time.sleep(0.02)
        job.cancel()
        assert ended.get(timeout=60) == ("clip", "left")


def test_mcp_offers_the_same_three_as_tools(address):
    pytest.importorskip("mcp", reason='the MCP server needs gradio\'s extra: pip install "gradio[mcp]"')
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def ask() -> tuple[list, list]:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            answer = await session.call_tool(
                "compare", {"policies": "full,sliding-window", "prompt": PROMPT, "chunks": 2}
            )
            return (await session.list_tools()).tools, answer.content

    with ThreadPoolExecutor(1) as aside:  # Playwright's browser keeps a loop running in this thread
        tools, (answer,) = aside.submit(lambda: asyncio.run(ask())).result()
    assert [f"/{tool.name}" for tool in tools] == NAMES
    assert all(
        tool.description and all(p.get("description") for p in tool.inputSchema["properties"].values())
        for tool in tools
    )
    assert list(json.loads(answer.text)["policies"]) == ["full", "sliding-window"]
    clip = next(tool for tool in tools if tool.name == "generate_clip")
    assert all(name in clip.inputSchema["properties"]["policy"]["description"] for name in POLICIES)


def test_an_mcp_client_who_leaves_ends_the_run(address, slowly, ended):
    pytest.importorskip("mcp", reason='the MCP server needs gradio\'s extra: pip install "gradio[mcp]"')
    arguments = {"prompt": PROMPT, "policy": "full", "chunks": 120}
    call = {"method": "tools/call", "params": {"name": "generate_clip", "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream"}
    with httpx.Client(base_url=address, timeout=120) as http:
        with httpx.Client(base_url=address, timeout=120) as program:
            body = {"jsonrpc": "2.0", "id": 1} | call
            with program.stream("POST", "/gradio_api/mcp/", json=body, headers=headers) as answer:
                assert answer.status_code == 200
                settle(http, 1)
        assert ended.get(timeout=60) == ("clip", "left")
        settle(http, 0)


def test_mcp_without_its_package_is_refused_in_a_sentence(monkeypatch, capsys):
    from fkv.studio import server as module

    monkeypatch.setenv("GRADIO_MCP_SERVER", "True")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert launch.arguments([]).mcp
    assert launch.main(["--port", "0"]) == 2
    assert 'pip install "gradio[mcp]"' in capsys.readouterr().err
