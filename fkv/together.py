"""Streams side by side: one after the other, or at once with a share of the processor's threads each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

from kernels.onednn import multiplies_float32

from .attention import CausalTransformer, Probe
from .report import device_name
from .stream import Chunk, Stream


def threads_each(transformer: CausalTransformer, streams: int) -> int:
    """With how many threads each of some streams computes while the others do; 0 where they take turns.

    At once on CPUs that compute in float32, where threads of their own save streams the many moments at which two threads wait for each
    other: on two cores of an AMD EPYC without bfloat16 they made 1.1 to 1.5 times as much video, with the same pictures to the last bit.
    In turn on GPUs, and where attention needs `kernels.onednn.float32_by_onednn`, which lets in one thread at a time.
    """
    if transformer.device.type != "cpu" or transformer.dtype != torch.float32 or multiplies_float32():
        return 0
    return torch.get_num_threads() // streams if streams > 1 else 0


def device_of(transformer: CausalTransformer, streams: int) -> str:
    """The device in words, and what each of some streams has of it, as it belongs beside figures measured there."""
    threads = threads_each(transformer, streams)
    return device_name(transformer.device) + (f", {threads} for each stream" if threads else "")


def step_all(streams: Mapping[str, Stream], turn: Iterable[str], probes: Mapping[str, Probe]) -> dict[str, Chunk]:
    """The next chunk of every stream of one model, in the order of `turn` where they take turns; some may be probed.

    Fails as the first in `turn` that fails, once all have ended.
    """
    threads = threads_each(next(iter(streams.values())).model.transformer, len(streams))
    if not threads:
        return {name: streams[name].step(probes.get(name)) for name in turn}
    own = torch.get_num_threads()
    try:
        steps = {name: _workers(len(streams), threads).submit(streams[name].step, probes.get(name)) for name in turn}
        wait(steps.values())
    finally:
        torch.set_num_threads(own)  # a worker's number is its own, but threads yet to begin would take it too
    return {name: step.result() for name, step in steps.items()}


@cache
def _workers(count: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "fkv-stream", torch.set_num_threads, (threads,))
