"""The parts of a GPU run, each a command that writes one JSON file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fkv.bench import models, report, streams
from fkv.bench.work import COPY_BYTES, PRODUCT_SIDE, ceilings
from fkv.commands.main import main
from fkv.models import registry
from fkv.models.precision import COMPUTE
from fkv.models.release import BASES, RESOLUTIONS

from . import by_kernel

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        name: Of the part and its file.
        seconds: How long it may take at most, in a run of ten minutes.
        work: Called as `work(target, device, words)`; writes JSON to the file `target` and returns an exit status,
            1 where a check failed.
        words: What to do, in the form of a command line.
    """

    name: str
    seconds: float
    work: Callable[[Path, str, list[str]], int]
    words: str


def fkv(target: Path, device: str, words: list[str]) -> int:
    """Run a command of `fkv`."""
    argv = [*words, "--device", device, "--json", str(target)]
    sys.argv = ["fkv", *argv]
    return main(argv)


def write(target: Path, found: dict[str, Any]) -> int:
    """Write a report."""
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def machine(target: Path, device: str, words: list[str]) -> int:
    """Say what the machine is and measure its ceilings in each precision of `words`."""
    place = torch.device(device)
    best = {}
    for precision in words:
        measure = ceilings(place, COMPUTE[precision])
        seen = measure()
        for _ in range(4):
            seen = seen.or_better(measure())
        best[precision] = {"tflops": seen.flops / 1e12, "gbps": seen.bandwidth / 1e9}
    return write(target, {**report.surroundings(place), "ceilings": best})


class Outcomes:
    """A pytest plugin that notes what passed, was skipped or failed."""

    def __init__(self) -> None:
        self.count = {"passed": 0, "skipped": 0, "failed": 0}
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.count[report.outcome] += 1
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr).strip().splitlines()[-1]


def kernels(target: Path, device: str, words: list[str]) -> int:
    """Run tests of the Triton kernels against float64 definitions, and of what else needs a GPU."""
    seen = Outcomes()
    files = [str(TESTS / f"test_{name}.py") for name in ("triton", "graphs")]
    status = pytest.main([*files, "-p", "no:cacheprovider", *words], plugins=[seen])
    write(target, {"tests": seen.count, "failures": seen.failures})
    return int(status)


def profile(target: Path, device: str, words: list[str]) -> int:
    """Profile one chunk by kernel. `words`: model, resolution, context, then options of speed; both policies."""
    name, resolution, context, *options = words
    model = models.build(name, torch.device(device), resolution=resolution)
    registry.speed_up(model.transformer, "--compile" in options, "--graphs" in options)
    found = {policy: by_kernel.measure(model, policy, int(context)) for policy in ("full", "forcing-kv")}
    return write(target, {**report.surroundings(model.device), "options": options, "chunks": found})


def _table() -> Iterator[Part]:
    """The parts in their order: what matters most comes first."""
    yield Part("machine", 20, machine, "bf16 fp32")
    yield Part("kernels", 60, kernels, "-k cuda")
    for precision in ("fp32", "bf16"):
        for folder in ("golden", "golden_rules_a", "golden_rules_b"):
            words = f"parity {TESTS / folder} --precision {precision}"
            yield Part(f"{folder}-{precision}", 40, fkv, words)
    yield Part(
        "tiny", 40, fkv, "bench --model tiny --context 21,84 --policies full,forcing-kv,forcing-kv:fp8=true --repeats 5"
    )
    yield Part("tiny-eval", 40, fkv, "eval --policy full,forcing-kv --prompts 2 --seconds 10")
    small = "bench --model wan-1.3b --resolution 480p --context 21"
    every = "--precision fp8-fast --compile --graphs --decoder small --overlap"
    yield Part("480p", 60, fkv, f"{small} --policies full,forcing-kv,forcing-kv:fp8=true --repeats 5")
    yield Part("480p-compile-graphs", 70, fkv, f"{small} --compile --graphs --repeats 5")
    yield Part("480p-everything", 70, fkv, f"{small} {every} --repeats 5")
    yield Part("480p-by-kernel", 40, profile, "wan-1.3b 480p 21")
    yield Part("14b-480p", 70, fkv, "bench --model wan-14b --resolution 480p --context 21 --repeats 2")
    for resolution, repeats in (("720p", 3), ("1080p", 2)):
        wide = f"bench --model wan-1.3b --resolution {resolution} --context 21 --repeats {repeats}"
        yield Part(resolution, 70, fkv, wide)
        yield Part(f"{resolution}-everything", 80, fkv, f"{wide} {every}")
    for name, options in (
        ("graphs", "--graphs"),
        ("compile", "--compile"),
        ("fp8", "--precision fp8-fast --compile"),
        ("small", "--decoder small"),
        ("small-overlap", "--decoder small --overlap"),
        ("vae", "--decoder vae"),
        ("vae-overlap", "--decoder vae --overlap"),
    ):
        yield Part(f"480p-{name}", 60, fkv, f"{small} {options} --repeats 3")
    yield Part(
        "14b-480p-everything", 80, fkv, f"bench --model wan-14b --resolution 480p --context 21 {every} --repeats 2"
    )
    for resolution in RESOLUTIONS:
        yield Part(f"layer-{resolution}", 20, fkv, f"bench --attention --resolution {resolution} --repeats 5")
    yield Part("480p-by-kernel-compile-graphs", 60, profile, "wan-1.3b 480p 21 --compile --graphs")


PARTS = tuple(_table())

REHEARSED = {  # part -> what it does in a rehearsal
    "machine": "fp32",
    "kernels": "-k cpu_tensors_take_the_twin",
    "golden-fp32": f"parity {TESTS / 'golden'} --runs rolling",
    "480p": "bench --model wan-1.3b --resolution 480p --context 9 --repeats 1",
    "480p-everything": "bench --model wan-1.3b --context 9 --repeats 1 --precision fp8 --decoder small",
    "480p-by-kernel": "wan-1.3b 480p 9",
    "14b-480p": "bench --model wan-14b --resolution 480p --context 9 --repeats 1",
    "layer-480p": "bench --attention --resolution 480p --repeats 1",
}


def rehearsed() -> list[Part]:
    """The kinds of parts as a CPU does them in seconds: in small sizes, without what CPUs refuse."""
    return [replace(part, words=REHEARSED[part.name]) for part in PARTS if part.name in REHEARSED]


def shrink() -> None:
    """Make the models, pictures and matrices of this process as small as a rehearsal needs them."""
    torch.set_num_threads(1)
    for name, base in BASES.items():
        BASES[name] = replace(
            base, layers=2, dim=12 * base.heads, ffn_dim=32, text_dim=8, max_sequence_length=4, freq_dim=16
        )
    RESOLUTIONS.update({"480p": (4, 12), "720p": (4, 24), "1080p": (8, 24)})
    PRODUCT_SIDE["cpu"] = 64
    COPY_BYTES["cpu"] = 2**20
    streams.CAPTURE_CHUNKS = 1


def work(part: Part, folder: Path, rehearse: bool) -> int:
    """Do a part in this process."""
    if rehearse:
        shrink()
    return part.work(folder / f"{part.name}.json", "cpu" if rehearse else "cuda", part.words.split())
