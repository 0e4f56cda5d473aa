"""Streams side by side: one after the other, or at once with a thread of the processor each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

from fkv.kernels.onednn import multiplies_float32
from fkv.models.base import VideoModel
from fkv.report import device_name
from fkv.stream import Chunk, Stream
from fkv.transformer.causal import CausalTransformer, Probe


def runs_concurrently(transformer: CausalTransformer, streams: int) -> bool:
    """Whether some streams compute at once, each with a thread of its own; otherwise they take turns, and each has all threads.

    At once on CPUs that compute in float32 and have just a thread for each: they save the many moments at which threads wait for each
    other. On two cores of an AMD EPYC without bfloat16 two streams made 1.1 to 1.5 times as much video so, with the same pictures to the
    last bit. In turn on GPUs, in bfloat16, in which both ways take as long on two idle cores, and where attention needs
    `fkv.kernels.onednn.float32_by_onednn`, which lets in one thread at a time.
    """
    if streams < 2 or transformer.device.type != "cpu" or transformer.dtype != torch.float32:
        return False
    return torch.get_num_threads() // streams == 1 and not multiplies_float32()


def device_of(model: VideoModel, streams: int) -> str:
    """The device in words, what each of some streams has of it, and the precision, as they belong beside figures measured there."""
    share = ", one for each stream" if runs_concurrently(model.transformer, streams) else ""
    return f"{device_name(model.device)}{share}, {model.precision}"


def step_all(streams: Mapping[str, Stream], turn: Iterable[str], probes: Mapping[str, Probe]) -> dict[str, Chunk]:
    """The next chunk of every stream of one model, in the order of `turn` where they take turns; some may be probed.

    Fails as the first in `turn` that fails, once all have ended.
    """
    if not runs_concurrently(next(iter(streams.values())).model.transformer, len(streams)):
        return {name: streams[name].step(probes.get(name)) for name in turn}
    own = torch.get_num_threads()
    try:
        steps = {name: _workers(len(streams)).submit(streams[name].step, probes.get(name)) for name in turn}
        wait(steps.values())
    finally:
        torch.set_num_threads(own)  # a worker's number is its own, but threads yet to begin would take it too
    return {name: step.result() for name, step in steps.items()}


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "fkv-stream", torch.set_num_threads, (1,))
