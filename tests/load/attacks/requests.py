"""Requests and connections: uploads, bodies, names, paths, slow and half-open connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import quote

import httpx

from tests.load.client import Visitor

from . import Attempt, Target, check

JSON = {"Content-Type": "application/json"}
JOIN = "/gradio_api/queue/join"
FORM = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n"


def answers(target: Target, longest: float = 5.0) -> Attempt:
    """Whether the studio answers soon."""
    began = time.monotonic()
    with target.client() as client:
        status = client.get("/healthz").status_code
    seconds = time.monotonic() - began
    return f"/healthz: {status} after {seconds:.1f} s", status == 200 and seconds < longest


@check("many tiny uploads freeze nobody")
def tiny_uploads(target: Target) -> Iterator[Attempt]:
    with target.client() as client:
        for number in range(target.count(27)):
            files = [("files", (f"{part}.txt", b"0")) for part in range(990)]
            origin = {"Origin": "http://evil.example"} if number % 2 else {}
            status = client.post("/gradio_api/upload", files=files, headers=origin).status_code
            yield f"990 parts: {status}", status in (403, 404, 413)
        for _ in range(target.count(20)):
            status = client.get("/gradio_api/upload_progress", params={"upload_id": "x" * 30_000}).status_code
            yield f"the progress of none: {status}", status == 404
    yield answers(target)


@check("uploads that race are all refused, before their bodies come")
def racing_uploads(target: Target) -> Iterator[Attempt]:
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\n{FORM.format(15 << 20)}".encode()
    with ExitStack() as stack:
        for connection in [stack.enter_context(closing(target.connect(head))) for _ in range(target.count(40))]:
            answer = connection.recv(32)
            yield f"15 MiB: {answer!r}", b" 404" in answer or b" 413" in answer
    yield answers(target)


def bodies() -> Iterator[tuple[str, bytes]]:
    yield "100,000 lists", b"[" * 100_000
    yield "1,000 objects", b'{"a":' * 1000 + b"1" + b"}" * 1000
    yield "a number of 400 digits", b'{"data": [1' + b"0" * 400 + b"]}"
    yield "1e400", b'{"data": [1e400]}'
    yield "NaN", b'{"data": [NaN]}'
    yield "a session hash of 900 kB", json.dumps({"session_hash": "x" * 900_000}).encode()
    yield "a list as session hash", b'{"session_hash": ["x"]}'
    yield "no JSON", b"nonsense"
    yield "UTF-16, in which depth and numbers look otherwise", '["\u2200", [1e400]]'.encode("utf-16-le")
    yield "350,000 lists", b'{"data": [' + b"[]," * 350_000 + b"[]]}"
    yield "no UTF-8", b'{"data": ["\xff\xfe"]}'
    yield "2 MiB", b" " * (2 << 20)


@check("whoever asks for much at once keeps nobody waiting")
def much_at_once(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as visitor, target.client() as client, ThreadPoolExecutor(24) as attackers:
        hint = next(each for each in visitor.config["dependencies"] if any(map(visitor.is_text, each["inputs"])))
        body = {"data": ["red ball " * 25_000], "fn_index": hint["id"], "session_hash": visitor.session}
        figures = ("/atlas/role-atlas.png", "/board/rows.json", "/board/tiny-small.png?by=adherence")
        for path in ("/", "/config", "/gradio_api/info", "/openapi.json", *figures, "/gradio_api/run/predict"):
            method, sent = ("POST", body) if path.endswith("predict") else ("GET", None)
            asked = [attackers.submit(client.request, method, path, json=sent) for _ in range(target.count(200))]
            while not all(each.done() for each in asked):
                yield answers(target)
            for each in asked:
                yield f"{path}: {each.result().status_code}", each.result().status_code in (200, 503)


@check("absurd bodies are refused, of MCP calls too")
def absurd_bodies(target: Target) -> Iterator[Attempt]:
    with target.client() as client:
        for path in (
            JOIN,
            "/gradio_api/run/predict",
            "/gradio_api/call/generate_clip",
            "/gradio_api/cancel",
            "/gradio_api/mcp/",
        ):
            for name, body in bodies():
                for _ in range(target.count(3)):
                    status = client.post(path, content=body, headers=JSON).status_code
                    yield f"{path}, {name}: {status}", status in (400, 413, 422)
    yield answers(target)


@check("no other site may call the studio")
def other_sites(target: Target) -> Iterator[Attempt]:
    names = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "0.0.0.0", "evil.example:80")
    with target.client() as client:
        for path in ("/gradio_api/mcp/", JOIN, "/gradio_api/call/generate_clip", "/gradio_api/run/predict"):
            for name in names:
                for headers in (
                    {"Host": name},
                    {"Origin": f"http://{name}"},
                    {"Host": name, "Origin": f"http://{name}"},
                ):
                    status = client.post(path, json={"data": []}, headers=headers).status_code
                    yield f"{path}, {headers}: {status}", status in (400, 403)


@check("no caller's headers are in what others read")
def forwarded(target: Target) -> Iterator[Attempt]:
    with target.client() as client:
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json"):
            for header in ("Host", "X-Forwarded-Host", "X-Gradio-Server"):
                for name in ("evil.example", "http://evil.example", "[::1", "a" * 5000)[: target.count(4)]:
                    status = client.get(path, headers={header: name}).status_code
                    told = client.get(path).text
                    yield f"{path}, {header}: {name[:30]}: {status}", status < 500 and "evil.example" not in told


OUTSIDE = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "....//....//etc/passwd",
    "app.py",
    "README.md",
    "assets/tiny/roles.json",
    "/proc/self/environ",
    "~/.ssh/id_rsa",
    "..\\..\\app.py",
    "app.py\0.png",
    "C:/Windows/win.ini",
    "C:\\Windows\\win.ini",
    "\\\\server\\share\\x",
    "/proc/self/root/etc/passwd",
    "/proc/self/cwd/app.py",
    "/dev/zero",
    "/" + "a/" * 5000,
    "%c0%ae%c0%ae/etc/passwd",
    "%zz",
)
ROUTES = (
    "/gradio_api/file={}",
    "/gradio_api/file/{}",
    "/gradio_api/custom_component/{}/x/y/z",
    "/gradio_api/deep_link?session_hash={}",
    "/gradio_api/proxy={}",
    "/static/{}",
    "/assets/{}",
    "/fkv/{}",
    "/stage/{}/0",
    "/{}",
)


@check("no path leads to a file outside, none fetches for others")
def paths(target: Target) -> Iterator[Attempt]:
    fetched = ("http://127.0.0.1:1/", "https://evil.example/", "file:///etc/passwd", "//evil.example/x")
    for route in ROUTES:
        for outside in (*OUTSIDE, *fetched)[: target.count(23)]:
            for written in (
                outside,
                quote(outside, safe=""),
                quote(quote(outside, safe=""), safe=""),
                outside.replace("/", "%2f"),
            ):
                path = route.format(written).replace("\0", "%00").replace(" ", "%20")
                with closing(
                    target.connect(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                ) as one:
                    answer = b"".join(iter(lambda one=one: one.recv(1 << 16), b""))
                status = answer[9:12]
                leaks = any(secret in answer for secret in (b"root:", b"PATH=", b"fkv.runtime"))
                yield f"{path}: {status!r}", not leaks and status in (b"400", b"403", b"404", b"405", b"422", b"307")


@check("malformed HTTP is answered or ended")
def malformed(target: Target) -> Iterator[Attempt]:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G E T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"\0" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        for _ in range(target.count(5)):
            try:
                status = target.status(data)
            except ConnectionError:
                status = 0
            yield f"{data[:40]!r}: {status}", status < 500
    yield answers(target)


CHUNKED = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@check("bodies in tiny pieces, or with something that is no HTTP, end their connection")
def pieces(target: Target) -> Iterator[Attempt]:
    extension = b"1;" + b"x" * 60_000 + b"\r\n \r\n"
    for path in (JOIN, "/gradio_api/upload", "/gradio_api/mcp/", "/healthz"):
        for data in (b"1\r\n \r\n" * 20_000, extension * 1200, b"zz\r\n"):
            for _ in range(target.count(5)):
                with closing(target.connect(CHUNKED.format(path).encode())) as connection:
                    connection.settimeout(10)
                    ended = False
                    try:
                        connection.sendall(data)
                        while connection.recv(1 << 16):
                            pass
                        ended = True
                    except TimeoutError:
                        pass
                    except OSError:
                        ended = True
                yield f"{path}, {data[:8]!r}", ended
    yield answers(target)


@check("half-open connections shut nobody out")
def half_open(target: Target) -> Iterator[Attempt]:
    parts = (
        b"",
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        f"POST {JOIN} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1".encode(),
    )
    with ExitStack() as stack:
        for number in range(target.count(1200)):
            try:
                stack.enter_context(closing(target.connect(parts[number % len(parts)])))
            except OSError as error:
                yield f"connection {number}: {error}", True  # refused: what counts is whether others are served
            if number % 100 == 99:
                yield answers(target)
        yield answers(target)


@check("half-closed connections end, and their calls with them")
def half_closed(target: Target) -> Iterator[Attempt]:
    for path in ("/gradio_api/heartbeat/x", "/gradio_api/queue/data?session_hash=x", "/config", "/healthz"):
        for _ in range(target.count(10)):
            with closing(target.connect(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())) as connection:
                connection.shutdown(socket.SHUT_WR)
                began = time.monotonic()
                try:
                    while connection.recv(1 << 16):
                        pass
                except OSError:
                    pass
                yield path, time.monotonic() - began < 20
    yield answers(target)


@check("streams that end all at once keep nobody waiting")
def many_streams(target: Target) -> Iterator[Attempt]:
    paths = ("heartbeat/{}", "queue/data?session_hash={}", "heartbeat/{}?x", "call/compare/{}")
    with ExitStack() as stack:
        for number in range(target.count(480)):
            path = paths[number % 4].format(f"x{number}")
            upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            data = f"GET /gradio_api/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}\r\n"
            stack.enter_context(closing(target.connect(data.encode())))
            if number % 60 == 59:
                yield answers(target)
    yield answers(target)


RANGES = (
    "-5",
    "-0",
    "10-5",
    "0-0,0-0",
    "0-," * 2000,
    "0-1,3-" * 500,
    "a-b",
    "--5",
    "9" * 400 + "-",
    "0-" + "9" * 400,
    "²-³",
    "",
)


@check("no range of a video is more than the video")
def ranges(target: Target) -> Iterator[Attempt]:
    with Visitor(target.address) as visitor:
        clip = next(each for each in visitor.config["dependencies"] if each["api_name"] == "generate_clip")
        visitor.join(clip, ["a red ball", "full", 1, 0]).raise_for_status()
        (video, _) = list(visitor.outputs())[-1]
        size = len(visitor.http.get(video["url"]).raise_for_status().content)
        for unit in ("bytes", "items"):
            for each in RANGES:
                answer = visitor.http.get(video["url"], headers={"Range": f"{unit}={each}".encode()})
                held = answer.status_code in (206, 400, 416) and len(answer.content) <= size
                yield f"{unit}={each[:20]}: {answer.status_code}", held


@check("a foreign page gets no leave to read answers")
def preflights(target: Target) -> Iterator[Attempt]:
    with target.client() as client:
        for path in (JOIN, "/config", "/gradio_api/run/predict", "/gradio_api/mcp/", "/healthz"):
            for method in ("OPTIONS", "GET"):
                headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
                answer: httpx.Response = client.request(method, path, headers=headers)
                allowed = answer.headers.get("access-control-allow-origin")
                yield f"{method} {path}: {allowed}", allowed not in ("*", "http://evil.example")
