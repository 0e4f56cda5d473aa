"""Side by side with a thread each: the faster stream is ahead, and the run is what streams in turn would make."""

from __future__ import annotations

import json
import struct
import threading
import time
from functools import lru_cache
from importlib import import_module

import pytest
import torch

from fkv import policies
from fkv.parallel import lockstep
from fkv.storyboard import Cue, SetHeads, SetPolicy, SetPrompt
from fkv.stream import Stream
from fkv.studio.live import loop
from fkv.studio.live.attention_probe import Watch
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.sample_run import record
from fkv.studio.media.mp4 import Recording, write
from fkv.studio.media.protocol import unpack, whole
from tests.test_watch import FOCUS

CHUNKS = 7
AHEAD = 3  # chunks by which A is ahead here


@pytest.fixture
def at_once(monkeypatch):
    """Two threads that compute at once. A stream alone has one: the small model's decoder rounds otherwise with two."""
    own = torch.get_num_threads()
    attention = import_module("fkv.kernels.attention")
    monkeypatch.setattr(attention, "_backend_for", lru_cache(attention._backend_for.__wrapped__))
    for module in (lockstep, attention, import_module("fkv.kernels.frame_mass")):
        monkeypatch.setattr(module, "multiplies_float32", lambda: False)
    torch.set_num_threads(2)
    real = Stream.step

    def step(stream, probe=None):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return real(stream, probe)
        finally:
            if is_alone():
                torch.set_num_threads(threads)

    monkeypatch.setattr(Stream, "step", step)
    yield
    torch.set_num_threads(own)


def is_alone() -> bool:
    return not threading.current_thread().name.startswith("fkv-stream")


@pytest.fixture
def ahead(at_once, monkeypatch):
    """B begins no chunk before A is `AHEAD` chunks ahead of it or has ended."""
    fronts, real = [0], Stream.step

    def step(stream, probe=None):
        deadline = time.monotonic() + 60
        is_first = is_alone() or stream.policy.name == "forcing-kv"
        while not is_first and fronts[-1] < min(CHUNKS, stream.index + AHEAD) and time.monotonic() < deadline:
            time.sleep(0.002)
        chunk = real(stream, probe)
        if stream.policy.name == "forcing-kv":
            fronts.append(stream.index)
        return chunk

    monkeypatch.setattr(Stream, "step", step)


def go(small, act=lambda run, manifest: None, **form):
    """The run of a form, and its manifests; `act` is called after every manifest."""
    run, told = Run(1 << 26), []
    form = {"prompt": "a red ball", "seed": 5, "length": CHUNKS, "view": "AB", "a": "forcing-kv", "b": "full"} | form
    for manifest in live(small, Plan.from_form(roles=small.roles, **form), run, Queue(), Limits(lead=1e9, idle=1e9)):
        told.append(manifest)
        act(run, manifest)
    assert told[-1]["state"] == "done", told[-1]["text"]
    return run, told


def facts(run: Run) -> list:
    """What is the same of a run however its streams were stepped."""
    records = [unpack(chunk)[0] for chunk in run.chunks()]
    return [
        [{name: own["hash"] for name, own in each["streams"].items()}, each["events"], each["quality"], each["prompt"]]
        for each in records
    ]


def test_a_run_is_the_same_whoever_is_ahead(small, ahead, tmp_path):
    story = "3: re-cache = a blue star\n4: heads = 1.2 dynamic\n5: B = sliding-window\n6: steps = 1"
    run, told = go(small, story=story)
    assert any("B at chunk" in manifest["text"] for manifest in told)
    files = [unpack(run.get(number))[0] for number in range(run.files)]
    assert (run.count, run.files) == (CHUNKS, 2 * CHUNKS) and [f for f in files if f.get("later") == ["B"]]
    assert max(f["index"] for f in files[:AHEAD]) == AHEAD - 1 and {*files[0]["streams"]} == {"A"}
    whole_chunk, jpegs = unpack(run.chunks()[4])
    assert [*whole_chunk["streams"]] == ["A", "B"] and len(jpegs) == 2 * whole_chunk["streams"]["A"]["video_frames"]
    film = tmp_path / "film.mp4"
    assert [*write(Recording(whole(run.chunks()), 16, "here", plain=True), film)] == [*range(1, CHUNKS + 1)]

    torch.set_num_threads(1)
    in_turn, _ = go(small, story=story)
    assert in_turn.files == CHUNKS
    assert facts(run) == facts(in_turn)


def test_a_change_holds_from_the_first_chunk_that_no_stream_has_begun(small, ahead):
    changes = []

    def act(run, manifest):
        if manifest["chunks"] == 4 and not changes:
            changes.append(max(unpack(run.get(number))[0]["index"] for number in range(run.files)) + 1)
            run.add_change(SetPrompt("a blue star"))
            run.add_change(SetHeads((((1, 2), "dynamic"),)))

    run, _ = go(small, act)
    events = {number: told for number, (_, told, *_) in enumerate(facts(run)) if told}
    ((chunk, told),) = events.items()
    assert chunk >= changes[0] and told == ["a blue star", "heads = 1.2 dynamic"]
    story = "\n".join(f"{chunk + 1}: {line}" for line in told)
    again, _ = go(small, story=story)
    assert facts(again) == facts(run), "the link repeats it"


def test_no_stream_gets_too_far_ahead(small, ahead, monkeypatch):
    monkeypatch.setattr(loop, "MOST_AHEAD", AHEAD)
    gaps = []

    def act(run, manifest):
        counts = dict.fromkeys("AB", 0)
        for number in range(run.files):
            told = unpack(run.get(number))[0]
            counts |= dict.fromkeys(told["streams"], told["index"] + 1)
        gaps.append(counts["A"] - counts["B"])

    go(small, act)
    assert max(gaps) == AHEAD


def test_what_cannot_be_applied_is_said_when_the_stream_comes_there(small, ahead):
    _, told = go(small, act=lambda run, manifest: run.files or run.add_cues([Cue(2, SetPolicy("B", "per-step"))]))
    assert any("Not applied" in manifest["text"] for manifest in told)


def test_both_streams_are_watched_where_they_are(small, ahead):
    def act(run, manifest):
        run.watch = Watch("B", FOCUS, beside=True)

    run, _ = go(small, act)
    records = [unpack(chunk)[0] for chunk in run.chunks()]
    assert all((each["heads"]["stream"], each["beside"]["stream"]) == ("B", "A") for each in records[2:])


def test_a_stopped_run_keeps_what_both_have_for_its_film(small, ahead, monkeypatch):
    monkeypatch.setattr(loop, "MOST_AHEAD", AHEAD)  # else a starved B may have no chunk yet
    run, told = go(small, act=lambda run, manifest: manifest["chunks"] >= 5 and run.stop())
    count = len(run.chunks())  # a chunk that had begun may have joined the five
    assert told[-1]["text"].startswith(f"Stopped after {count} of 7") and count >= 5
    assert 0 < len(whole(run.chunks())) < count
    assert all(policies.parse(own["policy"]) for own in unpack(whole(run.chunks())[-1])[0]["streams"].values())


def test_a_recording_has_one_file_for_each_chunk(small, at_once):
    _, chunks = unpack(record(small, "a red ball", 5, 2))
    for chunk in chunks:
        (size,) = struct.unpack_from("<I", chunk)
        assert [*json.loads(chunk[4 : 4 + size])["streams"]] == ["A", "B"]
