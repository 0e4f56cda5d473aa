"""Work spread over Ray: merged, retried when a worker is killed, refused in words."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fkv.analysis.evaluate import evaluate
from fkv.commands.main import main
from fkv.parallel.ray_map import over_ray
from fkv.storyboard import Cue, SetPrompt, Storyboard

ray = pytest.importorskip("ray", reason="spreading work needs ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def square(number: int, mark: str) -> tuple[int, int]:
    """The square; the first worker that is given 2 dies of it."""
    if number == 2 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number, os.getpid()


def fail(number: int) -> int:
    raise ValueError(f"{number} is no good")


def test_a_lost_workers_job_goes_to_another(tmp_path):
    mark = tmp_path / "mark"
    made = list(over_ray(square, [(number, str(mark)) for number in range(5)], "local"))
    assert sorted(value for value, _ in made) == [0, 1, 4, 9, 16] and mark.exists()
    assert os.getpid() not in {worker for _, worker in made}


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[None]:
    """Start Ray once for the tests below, whose workers then load torch once."""
    start = ray.init
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **options: ray.is_initialized() or start(**options))
        patch.setattr(ray, "shutdown", lambda: None)
        yield
    ray.shutdown()


def test_what_a_job_raises_is_raised_here(one_cluster):
    with pytest.raises(ValueError, match="^7 is no good$"):
        list(over_ray(fail, [(7,)], "local"))


@pytest.mark.parametrize("error", [ray.exceptions.WorkerCrashedError(), ray.exceptions.OutOfMemoryError("killed")])
def test_a_job_whose_workers_are_lost_again_and_again_is_a_sentence(one_cluster, error, monkeypatch):
    def lost(job):
        raise error

    monkeypatch.setattr(ray, "get", lost)
    with pytest.raises(ValueError, match="worker was lost 4 times; is there enough memory"):
        list(over_ray(fail, [(7,)], "local"))


def test_a_cluster_that_is_not_there_is_a_sentence():
    with pytest.raises(ValueError, match="no Ray cluster answers at '127.0.0.1:1'"):
        list(over_ray(square, [], "127.0.0.1:1"))


SCENE = "a blue star drifting over the sea at night"


@pytest.mark.timeout(600)  # its workers load torch and make streams beside this process
def test_eval_over_ray_finds_what_one_process_finds(one_cluster, tmp_path):
    policies, same = ["sliding-window", "forcing-kv"], ("policy", "prompt", "caption", "adherence", "kv_bytes_peak")
    short = {"seconds": 2, "steps": 1, "story": Storyboard((Cue(1, SetPrompt(SCENE)),))}
    spread = evaluate(policies, prompts=2, **short, out=tmp_path / "spread", ray="local")
    assert [(record["policy"], record["prompt"]) for record in spread] == [
        (policy, prompt) for policy in policies for prompt in range(2)
    ]
    one = evaluate(policies, prompts=1, **short, out=tmp_path / "one")
    assert [[record[name] for name in same] for record in one] == [
        [record[name] for name in same] for record in spread[::2]
    ]


@pytest.mark.timeout(600)
def test_a_batch_over_ray_leaves_what_one_process_leaves(one_cluster, tmp_path, capsys):
    jobs = [
        {"name": "a", "prompt": "a red ball", "chunks": 2, "story": "2: a blue star", "policy": "full"},
        {"name": "b", "prompt": "a red ball", "chunks": 2, "story": "2: a pink box", "policy": "full"},
        {"name": "c", "prompt": "a red ball", "chunks": 2, "story": "2: A = recompute", "seed": 1},
    ]
    file, report = tmp_path / "jobs.jsonl", tmp_path / "report.json"
    file.write_text("\n".join(map(json.dumps, jobs)))
    manifests = {}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as in a worker
        for name, more in (("spread", ["--ray", "local"]), ("here", [])):
            out = tmp_path / name
            assert main(["batch", str(file), "--out", str(out), "--json", str(report), *more]) == 1
            manifests[name] = json.loads((out / "manifest.json").read_text())
            found = json.loads(report.read_text())
            assert (found["chunks_asked"], found["chunks_computed"]) == (6, 4)
            assert "c failed: a running stream cannot change" in capsys.readouterr().err
            assert sorted(path.name for path in out.glob("*.mp4")) == ["a.mp4", "b.mp4"]
    finally:
        torch.set_num_threads(threads)
    assert manifests["spread"] == manifests["here"]


def test_bench_over_ray_puts_context_lengths_into_one_report(one_cluster, tmp_path):
    target = tmp_path / "report.json"
    options = ["--context", "9,6", "--repeats", "1", "--decoder", "none", "--json", str(target)]
    assert main(["bench", "--ray", "local", *options]) == 0
    rows = json.loads(target.read_text())["results"]
    assert [(row["context"], row["policy"]) for row in rows] == [
        (9, "full"),
        (9, "forcing-kv"),
        (6, "full"),
        (6, "forcing-kv"),
    ]
