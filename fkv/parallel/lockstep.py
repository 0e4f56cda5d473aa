"""Streams side by side: in turns, or at once with a thread of the processor each, and then each at its own pace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier

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


class SideBySide:
    """Steps the streams of a run. Those that compute at once do not wait for each other; `close` waits for all."""

    def __init__(self) -> None:
        self._steps: dict[str, Future[Chunk]] = {}

    @property
    def busy(self) -> Collection[str]:
        """The streams whose next chunk has begun."""
        return self._steps.keys()

    def step(
        self,
        streams: Mapping[str, Stream],
        turn: Iterable[str],
        probes: Mapping[str, Probe],
        seconds: float | None = None,
    ) -> dict[str, Chunk]:
        """Generate chunks.

        Args:
            streams: By name, all of one model, without those that have generated their last chunk.
            turn: The names of those whose next chunk shall begin, in this order; none of them is busy.
            probes: By name, for the streams in `turn` to probe.
            seconds: How long to wait at most for streams that compute at once; None until one is ready.

        Returns:
            By name the chunks that are ready: those of all streams in `turn`; of streams that compute at once, those
            of the first ones.

        Raises:
            Exception: That of a stream that fails.
        """
        if not self._steps and not runs_concurrently(next(iter(streams.values())).model.transformer, len(streams)):
            return {name: streams[name].step(probes.get(name)) for name in turn}
        for name in turn:
            self._steps[name] = _workers(len(streams)).submit(streams[name].step, probes.get(name))
        wait(self._steps.values(), seconds, FIRST_COMPLETED)
        ready = [name for name, step in self._steps.items() if step.done()]
        return {name: self._steps.pop(name).result() for name in ready}

    def close(self) -> None:
        """Wait for chunks that have begun; nobody gets them."""
        wait(self._steps.values())
        self._steps.clear()


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Return workers that compute with one thread each."""
    threads = torch.get_num_threads()
    workers = ThreadPoolExecutor(count, "fkv-stream", _use_one_thread)
    begun = Barrier(count)
    wait([workers.submit(begun.wait) for _ in range(count)])
    torch.set_num_threads(threads)  # threads that start later would inherit a worker's number
    return workers


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes its number over when it first asks
