"""Passes of a steady stream as CUDA graphs: the launches of a pass are captured once and replayed as a whole.

Forcing-KV's page tables settle after a few chunks: the cache then stays in place, tokens go to free pages whose numbers
are in a fixed tensor, and every later pass at the same timestep reads and writes the same memory. Such a pass is
captured when it appears for the second time. A pass whose key length grows, as under the full cache, never appears
twice and is never captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.kernels import tables_used

# Runs a function and captures its launches. Returns a function that replays them, and the tensor that then holds the
# result.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def check_graphs(device: str) -> None:
    """Check that a device has CUDA graphs.

    Raises:
        ValueError: It has none.
    """
    if not device.startswith("cuda"):
        raise ValueError(f"--graphs records CUDA graphs, and the model would run on {device}; add --device cuda")


class CudaCapture:
    """Captures CUDA graphs, a `Capture`.

    All graphs that are alive share one pool of memory: only one runs at a time, and its result is copied. A pool ends
    with its last graph, since PyTorch (at least up to 2.10) refuses to capture into it again.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._alive: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        if not self._alive:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with tables_used() as tables, torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
            out = work()
        self._alive.add(graph)

        # The default argument keeps the head tables alive that the captured launches read.
        def replay(tables: Sequence[Tensor] = tuple(tables)) -> None:
            graph.replay()

        return replay, out


@dataclass(frozen=True)
class Captured:
    """A captured pass: tensors to fill with its inputs, a function that replays it, and the tensor with its result."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    out: Tensor


@dataclass
class SteadyPass:
    """A pass at one timestep that has run on some memory, and its capture from the second time on.

    Attributes:
        memory: Identifies the cache memory and the input shapes that it uses.
        parts: Weights and text that it uses, kept alive so that their memory is not reused.
        captured: The capture; None after the first run.
    """

    memory: Any
    parts: Sequence[Any]
    captured: Captured | None = None

    def matches(self, memory: Any, parts: Sequence[Any]) -> bool:
        """Whether a pass with this memory and these parts is the same pass."""
        return self.memory == memory and all(a is b for a, b in zip(self.parts, parts, strict=True))


class PassGraphs:
    """The captured passes of all streams of a model.

    They are dropped with the cache that they read, and replaced after a change of prompt, policy or roles.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._passes: WeakKeyDictionary[KVCache, dict[float, SteadyPass]] = WeakKeyDictionary()

    def run(
        self,
        work: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        timestep: float,
        cache: KVCache,
        parts: Sequence[Any],
    ) -> Tensor:
        """Compute `work(*inputs)`, by replaying it where that is possible.

        Between two calls at the same timestep, nothing that `work` uses may differ but the contents of `inputs` and of
        the cache's buffers.

        Args:
            work: The pass.
            inputs: Its tensors.
            timestep: Identifies the pass; `work` may depend on it.
            cache: The cache that `work` uses.
            parts: What else `work` uses.

        Returns:
            The result, in memory that later calls do not touch.
        """
        passes = self._passes.setdefault(cache, {})
        memory = (cache.memory_key(), *((x.shape, x.dtype) for x in inputs))
        if timestep not in passes or not passes[timestep].matches(memory, parts):
            passes[timestep] = SteadyPass(memory, tuple(parts))
            return work(*inputs)
        steady = passes[timestep]
        if steady.captured is None:
            fixed = tuple(x.clone() for x in inputs)
            replay, out = self._capture(lambda: work(*fixed))
            steady.captured = Captured(fixed, replay, out)
        for fixed_input, x in zip(steady.captured.inputs, inputs, strict=True):
            fixed_input.copy_(x)
        steady.captured.replay()
        return steady.captured.out.clone()
