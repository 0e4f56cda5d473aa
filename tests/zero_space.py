"""A ZeroGPU Space in small: the real `spaces` package, a scheduler that is made up, and main memory in the part of
the GPU's.

A process of its own, since `spaces` changes torch and Gradio for good. Prints as JSON what happened.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch


def nothing() -> None:
    """What CUDA's start and its fork check do here."""


CHUNK_SECONDS, LONGEST = 20.0, 200.0
PROMPT = "a red ball bouncing over the hills by day"


class Scheduler(BaseHTTPRequestHandler):
    """Lends one GPU, `idle` once its process is there; notes what is asked of it. `refusal`: answer that instead of
    lending."""

    asked: list[tuple[str, dict[str, str]]] = []
    idle = False
    refusal: dict[str, Any] | None = None

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        self.asked.append((url.path, {name: values[0] for name, values in parse_qs(url.query).items()}))
        code, answer = 200, {}
        if url.path == "/schedule":
            code = 429 if self.refusal else 200
            answer = self.refusal or {"idle": self.idle, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
            Scheduler.idle = True
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    torch.set_num_threads(1)
    if torch.version.cuda is None:  # a build without CUDA lacks what `spaces` replaces
        torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "12.8", nothing, nothing
    torch.cuda.synchronize = torch.accelerator.synchronize = (
        nothing  # a build with CUDA would wait for a GPU while it measures
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scheduler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    group = Path(tempfile.mkdtemp()) / "cgroup"
    group.write_text("0::/space\n")
    os.environ |= {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{server.server_port}",
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(group),
    }
    import spaces.zero.torch as emulation
    from spaces.zero.torch import patching

    def move(callback: Callable[[int], Any] | None = None) -> None:
        for name, original in patching.cuda_aliases.items():
            name.data = original

    emulation.init, emulation.move = lambda uuid: None, move
    from fkv.models import tiny
    from fkv.models.base import VideoModel
    from fkv.models.memory import free_memory
    from fkv.studio.live.limits import Limits
    from fkv.studio.live.sessions import Registry
    from fkv.studio.page import build

    VideoModel.chunk_seconds = property(lambda model: CHUNK_SECONDS)  # a busy machine may need long for a chunk
    told: dict[str, Any] = {"cuda": torch.cuda.is_available()}
    model = tiny.load(device="cuda", precision="fp32").with_steps(1)
    told |= {"device": str(model.device), "free": free_memory("cuda")["device"]}
    told["page"] = json.dumps(build(model, Registry(Limits(seconds=LONGEST))).get_config_file(), default=str)
    told |= {name: scenario(model) for name, scenario in SCENARIOS.items()}
    told["asked"] = Scheduler.asked
    print("\n" + json.dumps(told), flush=True)
    for child in active_children():
        child.kill()
    os._exit(0)


def stream(
    model: Any, view: str, length: int, act: Callable[[Any, dict[str, Any]], Any] = lambda run, manifest: None
) -> dict[str, Any]:
    """Stream as the Live tab does; `act` sees every manifest and may press what a visitor can press."""
    from fkv.studio.live.limits import Limits
    from fkv.studio.live.live import live
    from fkv.studio.live.plan import Plan
    from fkv.studio.live.queue import Queue
    from fkv.studio.live.run import Run
    from fkv.studio.live.zerogpu import generating
    from fkv.studio.media.protocol import unpack

    run, manifests = Run(1 << 24), []
    generate = GENERATE.setdefault("live", generating(model))
    plan = Plan.from_form(prompt=PROMPT, seed=3, length=length, view=view, a="forcing-kv", b="full")
    for manifest in live(model, plan, run, Queue(), Limits(seconds=LONGEST), generate):
        manifests.append(manifest)
        act(run, manifest)
    records = [unpack(chunk)[0] for chunk in run.chunks()]
    return {
        "states": [m["state"] for m in manifests],
        "texts": [m["text"] for m in manifests],
        "ended": run.ended,
        "events": [record["events"] for record in records],
        "heads": ["heads" in record for record in records],
        "hashes": [{name: each["hash"] for name, each in record["streams"].items()} for record in records],
    }


GENERATE: dict[str, Any] = {}


def press(run: Any, manifest: dict[str, Any]) -> None:
    """Change the prompt and look at a head after the first chunk, pause, resume while paused, stop after the fourth
    chunk."""
    from fkv.probe import Focus
    from fkv.storyboard import SetPrompt
    from fkv.studio.live.attention_probe import Watch

    if manifest["chunks"] == 1 and manifest["state"] == "live":
        run.add_change(SetPrompt("a blue star drifting over the sea at night"))
        run.watch = Watch("A", Focus(0, 0, 0, 0))
        run.pause(True)
    if manifest["state"] == "paused":
        run.pause(False)
    if manifest["chunks"] >= 4:
        run.stop()


def refused(model: Any) -> str:
    """What a visitor reads whose quota is used up."""
    Scheduler.refusal = {"left": 7, "wait": 3600}
    try:
        return stream(model, "A", 1)["texts"][-1]
    finally:
        Scheduler.refusal = None


def taken_back(model: Any) -> list[str]:
    """What a visitor reads when the process is ended in the middle of a run, and whether the next run goes well."""

    def end(run: Any, manifest: dict[str, Any]) -> None:
        if manifest["chunks"] == 1:
            for child in active_children():
                child.kill()

    broken = stream(model, "A", 8, end)
    Scheduler.idle = False
    return [broken["texts"][-1], stream(model, "A", 1)["states"][-1]]


def compared(model: Any) -> dict[str, Any]:
    """A comparison, a refusal inside the lent process, and a call that is left early."""
    from fkv.studio.live import comparison
    from fkv.studio.live.comparison_plan import ComparisonPlan
    from fkv.studio.live.limits import Limits
    from fkv.studio.live.queue import Queue
    from fkv.studio.live.run import Run

    Scheduler.idle = False
    play = comparison.player(model, Limits(seconds=LONGEST))
    plan = ComparisonPlan.from_form(["full", "forcing-kv"], PROMPT, "3", 2)
    *_, last = comparison.compare(model, play, plan, Run(0), Queue(), Limits(seconds=LONGEST))
    try:
        list(play(("full",), " ", 0, 1, 0))
    except ValueError as error:
        sentence = str(error)
    with closing(play(("full",), PROMPT, 3, 50, 0)) as chunks:
        next(chunks)
    return {"hashes": [record["frames_sha256"] for record in last.records], "state": last.state, "refused": sentence}


SCENARIOS: dict[str, Callable[[Any], Any]] = {
    "first": lambda model: stream(model, "AB", 2),
    "pressed": lambda model: stream(model, "A", 40, press),
    "again": lambda model: stream(model, "A", 1),
    "quota": refused,
    "taken_back": taken_back,
    "compared": compared,
}

if __name__ == "__main__":
    main()
