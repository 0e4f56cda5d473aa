"""Passes of a steady stream as CUDA graphs: what a pass launches is recorded once and launched as a whole from then on.

Forcing-KV's page tables settle after a few chunks: the cache then stays where it is, tokens go to free pages whose numbers lie
in a fixed tensor, and every later pass at the same timestep reads and writes the same memory. Such a pass is recorded at its
second appearance. One whose key length grows, as under the full cache, never appears twice and runs as it is.
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

Work = Callable[..., Tensor]
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records what a function does with the memory it uses; returns what does it again, and the tensor in which its result lies."""


def check_graphs(device: str) -> None:
    """Raises ValueError for a device that has no CUDA graphs."""
    if not device.startswith("cuda"):
        raise ValueError(f"--graphs records CUDA graphs, and the model would run on {device}; add --device cuda")


class CudaCapture:
    """Records CUDA graphs; all that are alive share one pool of memory, since only one runs at a time and its result is copied.

    A pool ends with its last graph: PyTorch up to 2.10 at least refuses to record into it again.
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

        def replay(held: Sequence[Tensor] = tuple(tables)) -> None:
            graph.replay()

        return replay, out


@dataclass
class CapturedPass:
    """A pass at one timestep. `where`: the memory that it uses; `parts`: weights and text, kept so that theirs stays its own."""

    where: Any
    parts: Sequence[Any]
    inputs: tuple[Tensor, ...] = ()
    replay: Callable[[], None] | None = None
    out: Tensor | None = None

    def is_of(self, where: Any, parts: Sequence[Any]) -> bool:
        return self.where == where and all(a is b for a, b in zip(self.parts, parts, strict=True))


class PassGraphs:
    """The recorded passes of all streams of a model. They go with the cache that they read; a change of prompt, policy or roles has
    them recorded anew."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._passes: WeakKeyDictionary[KVCache, dict[float, CapturedPass]] = WeakKeyDictionary()

    def run(
        self, work: Work, inputs: tuple[Tensor, ...], timestep: float, cache: KVCache, parts: Sequence[Any]
    ) -> Tensor:
        """`work(*inputs)` -> its result, a tensor of the caller's own.

        timestep : names the pass; `work` may depend on it. cache, parts : what else `work` uses; nothing in it may differ between two
        calls with the same timestep but what lies in `inputs` and in the cache's buffers.
        """
        known, where = self._passes.setdefault(cache, {}), (cache.where(), *((x.shape, x.dtype) for x in inputs))
        if timestep not in known or not known[timestep].is_of(where, parts):
            known[timestep] = CapturedPass(where, tuple(parts))
            return work(*inputs)
        own = known[timestep]
        if own.replay is None:
            own.inputs = tuple(x.clone() for x in inputs)
            own.replay, own.out = self._capture(lambda: work(*own.inputs))
        for fixed, given in zip(own.inputs, inputs):
            fixed.copy_(given)
        own.replay()
        return own.out.clone()
