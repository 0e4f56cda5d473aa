"""Streams side by side: in turns, or at once with a thread of the processor each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

from fkv.kernels.onednn import multiplies_float32
from fkv.models.base import VideoModel
from fkv.report import device_name
from fkv.stream import Chunk, Stream
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.probes import Probe


def runs_concurrently(transformer: CausalTransformer, streams: int) -> bool:
    """Whether streams compute at once, each with one thread; otherwise they take turns, each with all threads.

    At once on CPUs that compute in float32 and have exactly one thread for each stream: that saves the many moments at
    which threads wait for each other, and generates the same frames to the last bit (figures in
    assets/benchmarks/README.md).
    In turns on GPUs; in bfloat16, where both are equally fast; and where attention needs
    `fkv.kernels.onednn.float32_by_onednn`, which lets in one thread at a time.

    Args:
        transformer: Of the streams.
        streams: How many.
    """
    if streams < 2 or transformer.device.type != "cpu" or transformer.dtype != torch.float32:
        return False
    return torch.get_num_threads() // streams == 1 and not multiplies_float32()


def device_of(model: VideoModel, streams: int) -> str:
    """Return the device in words, each stream's share of it, and the precision, as they belong beside measured figures.

    Args:
        model: Of the streams.
        streams: How many run side by side.
    """
    share = ", one for each stream" if runs_concurrently(model.transformer, streams) else ""
    return f"{device_name(model.device)}{share}, {model.precision}"


def step_all(streams: Mapping[str, Stream], turn: Iterable[str], probes: Mapping[str, Probe]) -> dict[str, Chunk]:
    """Generate the next chunk of every stream.

    Args:
        streams: By name, all of one model.
        turn: The names, in the order in which they take turns.
        probes: By name, for the streams to probe.

    Returns:
        The chunks by name.

    Raises:
        Exception: That of the first stream in `turn` that fails, once all have ended.
    """
    if not runs_concurrently(next(iter(streams.values())).model.transformer, len(streams)):
        return {name: streams[name].step(probes.get(name)) for name in turn}
    threads = torch.get_num_threads()
    try:
        steps = {name: _workers(len(streams)).submit(streams[name].step, probes.get(name)) for name in turn}
        wait(steps.values())
    finally:
        torch.set_num_threads(threads)  # threads that start later would inherit a worker's number
    return {name: step.result() for name, step in steps.items()}


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Return workers that compute with one thread each."""
    return ThreadPoolExecutor(count, "fkv-stream", torch.set_num_threads, (1,))
