"""Each fault is injected: the visitor gets a sentence, the others notice nothing, the machine is free for the next
one."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fkv.models.base import VideoModel
from fkv.stream import Stream
from fkv.studio import folder, launch, server
from fkv.studio.live import telemetry
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.media import artifacts, assets
from fkv.studio.media.artifacts import Artifacts
from tests.load.client import Visitor, settle
from tests.load.inside import served

EAGER = Limits(lead=1e9)


def plan(length: int = 3, view: str = "AB") -> Plan:
    return Plan.from_form(prompt="a red ball", seed=5, length=length, view=view, a="forcing-kv", b="full")


def breaks(model: VideoModel, error: Exception, after: int = 2) -> VideoModel:
    """The model with a decoder that fails from its call number `after` on."""
    calls = iter(range(1_000_000))

    def decode(latents: torch.Tensor, state: Any) -> Any:
        if next(calls) >= after:
            raise type(error)(*error.args)
        return model.decoder(latents, state)

    return replace(model, decoder=decode)


def last(manifests: Iterator[dict[str, Any]]) -> dict[str, Any]:
    *_, manifest = manifests
    return manifest


@pytest.fixture
def streams(monkeypatch) -> list[weakref.ref]:
    """Weak references to every stream that is made."""
    made: list[weakref.ref] = []
    build = Stream.__init__
    monkeypatch.setattr(
        Stream,
        "__init__",
        lambda self, *args, **kwargs: (made.append(weakref.ref(self)), build(self, *args, **kwargs))[1],
    )
    return made


@pytest.fixture
def logged(monkeypatch, caplog) -> list[dict[str, Any]]:
    """The facts of every stream that ends. Tracebacks are not logged meanwhile: pytest would keep them, and with them
    a stream."""
    facts: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: facts.append(record.facts)
    monkeypatch.setattr(logging.getLogger("fkv.studio.live.turn"), "disabled", True)
    monkeypatch.setattr(telemetry.log, "handlers", [handler])
    caplog.set_level(logging.INFO, telemetry.log.name)
    return facts


FAILURES = {
    "decoder": (RuntimeError("the decoder broke"), "failed after 1 of 3 chunks", "failed"),
    "gpu memory": (
        torch.OutOfMemoryError("CUDA out of memory"),
        "ran out of memory after 1 of 3 chunks",
        "out of memory",
    ),
    "memory": (MemoryError(), "forcing-kv", "out of memory"),
    "cpu memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "--resolution", "out of memory"),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "disk of this machine is full", "disk full"),
}


@pytest.mark.parametrize(("error", "words", "ended"), FAILURES.values(), ids=list(FAILURES))
def test_a_failure_mid_stream_ends_that_stream_only(small, streams, logged, error, words, ended):
    queue = Queue()
    manifests = live(breaks(small, error), plan(), Run(1 << 20), queue, EAGER)
    for manifest in manifests:
        if manifest["state"] == "error":
            gc.collect()
            assert words in manifest["text"] and "Traceback" not in manifest["text"]
            assert [each() for each in streams] == [None, None], (
                "what the stream held is not free when the visitor is told"
            )
    assert manifest["state"] == "error"
    assert last(live(small, plan(), Run(1 << 20), queue, EAGER))["state"] == "done"
    assert [facts["ended"] for facts in logged] == [ended, "finished"]


def test_kv_memory_is_bounded_per_run(small, logged):
    first = last(live(small, plan(1, "B"), Run(1 << 20), Queue(), EAGER))
    assert first["state"] == "done"
    bound = Limits(lead=1e9, kv=2 * logged[0]["streams"]["B"]["kv_bytes_peak"])
    grown = last(live(small, plan(40, "B"), Run(1 << 20), Queue(), bound))
    assert "KV cache exceeded" in grown["text"] and 2 < grown["chunks"] < 40
    assert last(live(small, plan(12, "A"), Run(1 << 20), Queue(), bound))["text"].startswith("Finished")


def test_all_runs_together_keep_no_more_than_the_total():
    registry = Registry(Limits(memory=100, total=150))
    first, second = registry.begin("first"), registry.begin("second")
    second.live = True
    for run in (first, second):
        run.put(b"x" * 80)
    assert registry.kept_bytes == 80 and registry.chunk(first.key, 0) is None and registry.chunk(second.key, 0)
    third = registry.begin("third")
    third.live = True
    third.put(b"x" * 80)
    assert registry.chunk(second.key, 0) and registry.chunk(third.key, 0), "runs that stream keep what they have"


def test_too_many_in_line_are_told_so(small):
    queue = Queue(limit=1)
    with queue.join("running"), queue.join("waiting"):
        refused = last(live(small, plan(), Run(1 << 20), queue, EAGER))
        assert refused["state"] == "error" and "1 waiting" in refused["text"] and queue.waiting == 1
    assert last(live(small, plan(), Run(1 << 20), queue, EAGER))["state"] == "done"


def test_a_turn_is_shorter_once_others_wait(small):
    limits = Limits(lead=1e9, turn=0.0)
    queue = Queue()
    assert last(live(small, plan(3, "A"), Run(1 << 20), queue, limits))["text"].startswith("Finished")
    run = Run(1 << 20)
    with closing(live(small, plan(0, "A"), run, queue, limits)) as manifests:
        next(manifests)
        with queue.join("next"):
            assert "others are waiting" in last(manifests)["text"]


def test_a_stream_that_nobody_fetches_ends(small):
    limits = Limits(lead=1e9, idle=0.05)
    assert "nobody fetched" in last(live(small, plan(0, "A"), Run(1 << 20), Queue(), limits))["text"]
    run = Run(1 << 20)
    for manifest in live(small, plan(4, "A"), run, Queue(), limits):
        run.get(manifest["chunks"] - 1)
    assert manifest["text"].startswith("Finished")


def test_jumps_of_the_clock_change_nothing(small, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + random.choice((-1e6, 1e6)))
    kept = Artifacts()
    with kept.write("clip.mp4") as path:
        path.write_bytes(b"clip")
    limits = Limits(lead=1.0, seconds=60, idle=60, turn=60, pause=60)
    assert last(live(small, plan(3), Run(1 << 20), Queue(), limits))["text"].startswith("Finished")
    with kept.write("clip.mp4"):
        pass
    assert path.exists()


@pytest.mark.parametrize("bounds", [{"memory": 10}, {"count": 2}], ids=str)
def test_artifacts_are_bounded_and_failed_ones_are_removed(bounds, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    kept = Artifacts(**bounds)
    for letter in "abcd":
        with kept.write("clip.mp4") as path:
            path.write_text(letter * 4)
    assert sorted(file.read_text() for file in tmp_path.rglob("*.mp4")) == ["cccc", "dddd"]
    with pytest.raises(RuntimeError), kept.write("clip.mp4") as path:
        path.write_text("half")
        raise RuntimeError
    assert (
        not path.exists()
        and len(list(tmp_path.rglob("*.mp4"))) == len(list((tmp_path / "forcing-kv-clips").iterdir())) == 2
    )


def test_missing_asset_at_start_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    monkeypatch.setattr(server, "temporary_folder", lambda: tmp_path)
    assert launch.main(["--port", "0"]) == 2
    told = capsys.readouterr().err
    assert "restore it from the repository" in told and told.count("\n") == 1 and str(tmp_path) not in told


def test_no_temporary_folder_at_start_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    assert launch.run() == 2
    assert capsys.readouterr().err == (
        "fkv-studio: no folder for temporary files can be written; name one with TMPDIR\n"
    )


@pytest.mark.parametrize("arguments", [["--longest-turn", "-1"], ["--most-waiting", "-3"], ["--longest-run", "nan"]])
def test_impossible_limits_are_refused(arguments, capsys):
    assert launch.main(["--port", "0", *arguments]) == 2
    told = capsys.readouterr().err
    assert re.match(rf"fkv-studio: {arguments[0]} must be a (whole )?number of at least 0, not ", told)


@pytest.mark.parametrize("port", ["-5", "65536", "99999"])
def test_impossible_ports_are_refused(port, capsys):
    assert launch.main(["--port", port]) == 2
    assert capsys.readouterr().err == f"fkv-studio: --port must be a number from 0 to 65535, not {port}\n"


@pytest.fixture(scope="module")
def address(small) -> Iterator[str]:
    """A studio in this process, with a short patience."""
    with served(small, Limits(lead=0.2, idle=4.0), metrics=True) as url:
        yield url


def streaming(visitor: Visitor, chunks: int = 1, **fields: Any) -> dict[str, Any]:
    """Go live and leave once so many chunks are there."""
    with closing(visitor.go(**{"chunks": 0, "stream": "A"} | fields)) as manifests:
        return next(manifest for manifest in manifests if manifest.get("chunks", 0) >= chunks)


def test_leaving_in_any_way_frees_the_machine(address):
    with Visitor(address) as other:
        for leave in (streaming, _reset, _joins_and_never_listens, _half_a_chunk):
            with Visitor(address) as visitor:
                leave(visitor)
            assert not settle(other)["running"], leave.__name__
            deadline = time.monotonic() + 10
            while (held := other.health()["chunk_bytes"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not held, f"{leave.__name__}: what nobody will look at is kept"
        assert last(other.go(chunks=2, stream="AB"))["text"].startswith("Finished")


def _reset(visitor: Visitor) -> None:
    """The network goes mid-stream: a reset instead of a farewell."""
    event = visitor.event("fkv-go")
    visitor.join(event, visitor.form(event, prompt="a red ball", chunks=0))
    connection = visitor.connection(f"/gradio_api/queue/data?session_hash={visitor.session}")
    while b"process_generating" not in connection.recv(1 << 16):
        pass
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def _joins_and_never_listens(visitor: Visitor) -> None:
    event = visitor.event("fkv-go")
    visitor.join(event, visitor.form(event, prompt="a red ball", chunks=0)).raise_for_status()
    deadline = time.monotonic() + 20
    while not visitor.health()["running"] and time.monotonic() < deadline:
        time.sleep(0.02)


def _half_a_chunk(visitor: Visitor) -> None:
    """A broken pipe: the connection goes while a chunk file is on its way."""
    manifest = streaming(visitor)
    connection = visitor.connection(f"/stage/{manifest['run']}/0")
    connection.recv(100)
    connection.close()


def test_a_slow_client_holds_nobody_up(address):
    with Visitor(address) as slow, Visitor(address) as quick:
        event = slow.event("fkv-go")
        slow.join(event, slow.form(event, prompt="a red ball", chunks=2))
        connection = slow.connection(f"/gradio_api/queue/data?session_hash={slow.session}")  # and never reads
        assert last(quick.go(chunks=2))["text"].startswith("Finished")
        connection.close()


def test_health_answers_while_a_stream_runs_and_metrics_count_it(address, logged):
    with Visitor(address) as visitor, Visitor(address) as other:
        with closing(visitor.go(chunks=0, prompt="a secret ball")) as manifests:
            next(manifest for manifest in manifests if manifest.get("chunks"))
            health = other.health()
            assert (
                health["running"] == 1
                and health["model"] == "small"
                and health["resident_bytes"] > 1e6
                and health["uptime_s"] > 0
            )
            with closing(other.go(chunks=1)) as waiting:
                assert "Place 1" in next(waiting)["text"]
        settle(other)
        metrics = other.http.get("/metrics").text
    assert (
        'fkv_streams_total{ended="left"}' in metrics
        and "fkv_running 0.0" in metrics
        and "fkv_resident_bytes" in metrics
    )
    facts = next(facts for facts in logged if facts["prompt"] == "a secret ball")
    assert (
        facts["ended"] == "left"
        and facts["chunks"] > 0
        and facts["bytes"] > 0
        and facts["streams"]["A"]["fps_end_to_end"] > 0
    )


def test_prompts_are_logged_only_where_asked_for():
    record = logging.LogRecord("fkv.streams", logging.INFO, "", 0, "stream", (), None)
    record.facts = {"ended": "finished", "prompt": "a secret"}
    assert "prompt" not in json.loads(telemetry.JsonLines().format(record))
    assert json.loads(telemetry.JsonLines(prompts=True).format(record))["prompt"] == "a secret"


def test_metrics_without_their_package_are_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert launch.main(["--port", "0", "--metrics"]) == 2
    assert "pip install prometheus_client" in capsys.readouterr().err


def test_a_full_disk_while_a_clip_is_written_is_a_sentence(address, monkeypatch):
    def full(name: str) -> str:
        path = Path(os.environ["GRADIO_TEMP_DIR"], "forcing-kv-clips", "full", name)
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/full")
        return "full"

    names = SimpleNamespace(token_urlsafe=lambda size: full("forcing-kv-studio-full-seed0.mp4"))
    monkeypatch.setattr(artifacts, "secrets", names)
    assert "disk of this machine is full" in _clip(address)
    monkeypatch.undo()
    assert not list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("full"))
    assert _clip(address).endswith("/forcing-kv-studio-full-seed0.mp4")


def _clip(address: str) -> str:
    """The path of a clip of one chunk, or what the user is told."""
    with Visitor(address) as visitor:
        event = next(each for each in visitor.config["dependencies"] if each["api_name"] == "generate_clip")
        visitor.join(
            event, visitor.form(event, prompt="a red ball", policy="full", chunks=1, seed=0)
        ).raise_for_status()
        try:
            return last(visitor.outputs())[0]["path"]
        except RuntimeError as error:
            return str(error)


def test_folders_of_a_killed_studio_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    child = os.fork()
    if child == 0:
        (folder.temporary_folder() / "left").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert list(tmp_path.glob("forcing-kv-studio-*/left"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] != [folder.temporary_folder().name]
    assert [str(path) for path in tmp_path.iterdir()] == [os.environ["GRADIO_TEMP_DIR"]]


def test_disconnects_at_random_moments_leave_nothing(address):
    from tests.load.disconnects import disconnect

    threads: list[threading.Thread] = []
    go: Callable[[int], None] = lambda seed: disconnect(address, random.Random(seed), longest=0.6)
    for seed in range(6):
        threads.append(threading.Thread(target=go, args=(seed,)))
        threads[-1].start()
    for thread in threads:
        thread.join(30)
    with Visitor(address) as visitor:
        health = settle(visitor)
        assert (health["running"], health["waiting"]) == (0, 0)
