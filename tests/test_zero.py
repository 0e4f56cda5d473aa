"""ZeroGPU: what crosses the border of the process that has the GPU, seen with the real `spaces` package
(`zero_space.py`)."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from zero_space import CHUNK_SECONDS, LONGEST, PROMPT

from fkv.models import tiny
from fkv.storyboard import SetPolicy, SetPrompt, SetRoles
from fkv.studio.live import zerogpu
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.protocol import unpack

SPACE = Path(__file__).with_name("zero_space.py")
pytestmark = pytest.mark.timeout(600)  # two interpreters load torch here


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What happened in the small ZeroGPU Space."""
    pytest.importorskip("spaces", reason="the package of ZeroGPU Spaces is not installed: pip install spaces")
    environment = os.environ | {"PYTHONPATH": str(SPACE.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SPACE)], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def asked(told: dict[str, Any], path: str) -> list[dict[str, str]]:
    return [parameters for called, parameters in told["asked"] if called == path]


def test_the_model_is_loaded_on_the_named_gpu_and_streams_as_anywhere(told):
    assert told["cuda"] and told["device"] == "cuda:0"
    assert told["first"]["states"] == ["live", "live", "live", "done"] and told["first"]["ended"] == "finished"
    threads, run = torch.get_num_threads(), Run(1 << 24)
    torch.set_num_threads(1)
    list(
        live(
            tiny.load(precision="fp32").with_steps(1),
            Plan.from_form(prompt=PROMPT, seed=3, length=2, view="AB", a="forcing-kv", b="full"),
            run,
            Queue(),
            Limits(lead=1e9),
        )
    )
    torch.set_num_threads(threads)
    here = [{name: each["hash"] for name, each in unpack(run.get(number))[0]["streams"].items()} for number in range(2)]
    assert told["first"]["hashes"] == here


def test_the_page_names_the_gpu_and_says_what_is_different(told):
    assert told["free"] > 1 << 30
    assert "<span>NVIDIA " in told["page"] and "a pause does not stop the clock" in told["page"]
    assert f"for at most {LONGEST:g} seconds" in told["page"]


def test_pause_prompt_heads_and_stop_reach_a_run(told):
    pressed = told["pressed"]
    assert (
        "paused" in pressed["states"] and pressed["states"][-2:] == ["live", "done"] and pressed["ended"] == "stopped"
    )
    assert ["a blue star drifting over the sea at night"] in [
        [e.removeprefix("prompt: ") for e in each] for each in pressed["events"]
    ]
    assert pressed["heads"][0] is False and pressed["heads"][-1] is True


def test_the_process_is_kept_and_begins_every_run_afresh(told):
    assert [each["A"] for each in told["again"]["hashes"]] == [told["first"]["hashes"][0]["A"]]
    assert (
        len({call["pid"] for call in asked(told, "/allow")}) == 3
    )  # one until it was ended, one after, one for comparisons


def test_every_call_asks_for_its_own_time_and_gives_the_gpu_back(told):
    seconds = [float(call["durationSeconds"]) for call in asked(told, "/schedule")]
    assert seconds[0] == zerogpu.LEAD_IN + 5 + 2 * 2 * CHUNK_SECONDS and seconds[1] == zerogpu.LEAD_IN + LONGEST
    assert len(asked(told, "/release")) == len(seconds) - 1  # all but the one that was refused
    assert [call["fail"] for call in asked(told, "/release")].count("true") == 1  # the one whose process was ended


def test_refusals_and_failures_are_sentences(told):
    assert told["quota"].startswith("ZeroGPU: ") and "GPU limit" in told["quota"]
    assert told["taken_back"] == ["ZeroGPU: GPU task aborted.", "done"]
    assert told["compared"]["refused"].startswith("the prompt is empty")


def test_a_comparison_crosses(told):
    compared = told["compared"]
    assert compared["state"] == "done" and compared["hashes"] == [
        told["first"]["hashes"][1]["B"],
        told["first"]["hashes"][1]["A"],
    ]


def test_elsewhere_work_is_done_here_without_the_package(monkeypatch):
    def work():
        yield 1

    monkeypatch.setitem(sys.modules, "spaces", None)  # an import would fail
    assert list(zerogpu.lend(work, lambda: 1.0)()) == [1] and not zerogpu.here()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert zerogpu.here()
    with pytest.raises(ImportError):
        zerogpu.lend(work, lambda: 1.0)


@pytest.mark.parametrize(("limit", "ended"), [("turn", "turn"), ("idle", "idle")])
def test_a_lent_run_stands_under_the_bounds_that_only_the_studio_sees(small, monkeypatch, limit, ended):
    monkeypatch.setattr(zerogpu, "here", lambda: True)
    monkeypatch.setattr(zerogpu, "lend", lambda work, seconds: work)
    plan = Plan.from_form(prompt=PROMPT, seed=3, length=0, view="A", a="full", b="full")
    queue, run = Queue(), Run(1 << 24)
    limits = Limits(**{"lead": 1e9, limit: 0.0})
    with closing(live(small, plan, run, queue, limits, zerogpu.generating(small))) as manifests:
        next(manifests)
        with queue.join("next"):
            *_, last = manifests
    assert (last["state"], run.ended) == ("done", ended) and run.count < 4


def test_what_is_asked_of_a_run_is_mirrored_in_order():
    near, far, said = Run(0), Run(0), []
    with zerogpu.mirrored(near) as file, zerogpu._repeating(zerogpu._reader(file, far)):
        near.add_change(pickle.loads)  # anything that can be pickled will do
        near.pause(True)
        wait(lambda: far.paused)
        said += far.take_changes()
        near.add_change(lambda streams: None)  # this cannot, and is left out
        near.add_change(repr)
        near.pause(False)
        wait(lambda: not far.paused)
        said += far.take_changes()
        near.pause(True)
        wait(lambda: far.paused)
        near.step()
        wait(lambda: not far.paused)
        far.put(b"")  # not yet here, where the step still waits for it
        assert far.paused and not near.paused
        near.stop()
        wait(lambda: far.stopped)
    assert said == [pickle.loads, repr] and not file.exists()


def wait(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_change_can_cross(shipped):
    for change in (SetPrompt("a star", True), SetPolicy("A", "full"), SetRoles(shipped.roles)):
        assert pickle.loads(pickle.dumps(change)) == change
