"""A visitor without a browser: the page's own events over HTTP, its stream of answers, and the chunk files."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from gradio_client.utils import apply_diff

ROOT = Path(__file__).parents[2]
PROMPT = "a red ball bouncing over the hills at sunset"
PATIENCE = 60.0
"""Seconds without any sign from the server after which a client gives up."""


class Visitor:
    """One session on a studio at `address`, which lasts, as a page's does, while its heartbeat is open."""

    def __init__(self, address: str, session: str | None = None) -> None:
        self.session = session or secrets.token_hex(8)
        self.http = httpx.Client(base_url=address, timeout=httpx.Timeout(PATIENCE), trust_env=False)
        self.config = self.http.get("/config").raise_for_status().json()
        self._parts = {part["id"]: part for part in self.config["components"]}
        self._heart = self.connection(f"/gradio_api/heartbeat/{self.session}")

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._heart.close()
        self.http.close()

    def connection(self, path: str) -> socket.socket:
        """A bare connection on which `path` has been asked for."""
        url = self.http.base_url
        connection = socket.create_connection((url.host, url.port), timeout=PATIENCE)
        path = url.path.rstrip("/") + path
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n\r\n".encode())
        return connection

    def event(self, elem_id: str, kind: str = "click") -> dict[str, Any]:
        """The page's event of a component."""
        for event in self.config["dependencies"]:
            for part, name in event["targets"]:
                if name == kind and self._parts.get(part, {}).get("props", {}).get("elem_id") == elem_id:
                    return event
        raise LookupError(f"the page has no {kind} of {elem_id}")

    def is_text(self, part: int) -> bool:
        """Whether a component holds text that a visitor types."""
        own = self._parts[part]
        return own["type"] in ("textbox", "dropdown") and not own["props"].get("multiselect")

    def is_number(self, part: int) -> bool:
        """Whether a component holds a number."""
        return self._parts[part]["type"] in ("number", "slider")

    def form(self, event: dict[str, Any], **fields: Any) -> list[Any]:
        """What the page sends with an event: the values that it shows, but for `fields`, named by how a component's
        label begins."""
        named = {name.lower().replace("_", " "): value for name, value in fields.items()}
        data = []
        for part in event["inputs"]:
            props = self._parts[part]["props"]
            label = str(props.get("label") or "").lower()
            key = next((name for name in sorted(named, key=len, reverse=True) if label.startswith(name)), None)
            data.append(named.pop(key) if key else props.get("value"))
        if named:
            raise LookupError(f"the event has no fields {', '.join(named)}")
        return data

    def join(self, event: dict[str, Any], data: Sequence[Any]) -> httpx.Response:
        """Ask for a queued event."""
        body = {
            "data": list(data),
            "fn_index": event["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        return self.http.post("/gradio_api/queue/join", json=body)

    def answers(self) -> Iterator[dict[str, Any]]:
        """Messages of the session's stream until it closes. Closing the iterator closes the connection."""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] == "close_stream":
                        return

    def outputs(self) -> Iterator[list[Any]]:
        """What a queued event puts on the page, every time it puts something. Raises RuntimeError with what the user
        is told."""
        shown: list[Any] | None = None
        with closing(self.answers()) as messages:
            for message in messages:
                if message["msg"] not in ("process_generating", "process_completed"):
                    continue
                output = message["output"]
                if not message["success"]:
                    raise RuntimeError(str(output.get("error")))
                if message["msg"] == "process_generating":
                    data = output["data"]
                    shown = (
                        list(data)
                        if shown is None
                        else [apply_diff(old, new) for old, new in zip(shown, data, strict=True)]
                    )
                    yield shown
                elif shown is None:
                    yield output["data"]

    def go(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """Press Go live and yield manifests; every chunk is fetched, as the page does. Closing the iterator leaves at
        once."""
        event = self.event("fkv-go")
        self.join(event, self.form(event, **{"prompt": PROMPT} | fields)).raise_for_status()
        fetched = 0
        with closing(self.outputs()) as shown:
            for first, *_ in shown:
                manifest = first.get("value", first) if isinstance(first, dict) else {}
                files = manifest.get("files", 0)
                for number in range(fetched, files):
                    self.chunk(manifest["run"], number)
                fetched = max(fetched, files)
                yield manifest

    def chunk(self, key: str, number: int) -> httpx.Response:
        return self.http.get(f"/stage/{key}/{number}")

    def press(self, elem_id: str, **fields: Any) -> httpx.Response:
        """An event that the page sends at once, past the queue."""
        event = self.event(elem_id)
        body = {"data": self.form(event, **fields), "fn_index": event["id"], "session_hash": self.session}
        return self.http.post("/gradio_api/run/predict", json=body)

    def refusal(self, event: dict[str, Any], data: Sequence[Any]) -> str:
        """Why the studio refuses an event with such data; "" where it does not."""
        if not event["queue"]:
            body = {"data": list(data), "fn_index": event["id"], "session_hash": self.session}
            answer = self.http.post("/gradio_api/run/predict", json=body)
            return "" if answer.status_code == 200 else str(answer.json()["error"])
        self.join(event, data).raise_for_status()
        try:
            with closing(self.outputs()) as shown:
                next(shown, None)
        except RuntimeError as error:
            return str(error)
        return ""

    def health(self) -> dict[str, Any]:
        return self.http.get("/healthz").raise_for_status().json()


def _hear_hangups() -> None:
    """Give SIGHUP its meaning back in a new process, which would else inherit that `nohup` ignores it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def studio(*arguments: str, **environment: str) -> Iterator[Studio]:
    """A studio of its own, as a process, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="fkv-load-") as folder:
        started = Studio(Path(folder), arguments, environment)
        try:
            started.wait()
            yield started
        finally:
            started.end()


class Studio:
    """A running `app.py`: its address, its log, its memory, its folders."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
        root: Path = ROOT,
    ) -> None:
        self.folder, port = folder, free_port()
        self.address, self.log = f"http://127.0.0.1:{port}", folder / "log"
        command = [*wrapper, sys.executable, "app.py", "--port", str(port), *arguments]
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
                preexec_fn=_hear_hangups,
            )

    def wait(self, seconds: float = 300.0) -> None:
        """Until it answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                httpx.get(f"{self.address}/healthz", timeout=5, trust_env=False).raise_for_status()
                return
            except httpx.HTTPError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the studio did not start:\n{self.log.read_text()}") from None
                time.sleep(0.1)

    def end(self, how: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def folders(self) -> list[Path]:
        """What lies in the studio's temporary folders."""
        return [path for path in self.folder.rglob("*") if path != self.log]

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines of JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def errors(self) -> list[str]:
        """Lines of the log that tell of an error."""
        return [line for line in self.log.read_text().splitlines() if "Traceback" in line or '"level": "error"' in line]


def settle(visitor: Visitor, seconds: float = 30.0) -> dict[str, Any]:
    """Health once nothing runs or waits any more, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        health = visitor.health()
        if not (health["running"] or health["waiting"]) or time.monotonic() > deadline:
            return health
        time.sleep(0.1)
