"""Several streams in one pass: each is a row of the products, with its own cache, positions and prompt.

For throughput and memory alone: rounding depends on the other rows, and the time of a pass belongs to all of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import astuple, replace
from typing import Any

import torch
from torch import Tensor

from fkv.cache import unique_bytes
from fkv.stream import Chunk, Stream, Timings
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.passes import Pass


def step_rows(streams: Sequence[Stream]) -> list[Chunk | Exception]:
    """Generate the next chunk of every stream, in passes that those share whose heads have the same order.

    Args:
        streams: Of one model. A single one steps as it does alone, to the last bit.

    Returns:
        Per stream its chunk, or why it failed; the others go on. Timings are those of the shared passes, split evenly.
    """
    if len(streams) == 1:
        try:
            return [streams[0].step()]
        except Exception as error:
            return [error]
    model = streams[0].model
    with torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext(), torch.inference_mode():
        rows = _Rows(model.transformer, [stream.passes() for stream in streams])
        return [_share(each, len(streams)) if isinstance(each, Chunk) else each for each in rows.run()]


def step_counted(streams: Sequence[Stream], waiting: Sequence[Stream] = ()) -> tuple[list[Chunk | Exception], int]:
    """Do as `step_rows`, and count memory.

    Args:
        streams: See `step_rows`.
        waiting: Streams that hold pages meanwhile.

    Returns:
        What `step_rows` returns, and the bytes of K and V in pages while the chunks attended, each shared page once.
    """
    everyone = {id(stream): stream for stream in (*streams, *waiting)}.values()
    kv_bytes = unique_bytes(cache for stream in everyone for cache in stream.caches)
    before = [sum(cache.bytes() for cache in stream.caches) for stream in streams]
    made = step_rows(streams)
    kv_bytes += sum(chunk.kv_bytes - held for chunk, held in zip(made, before, strict=True) if isinstance(chunk, Chunk))
    return made, kv_bytes


def _share(chunk: Chunk, rows: int) -> Chunk:
    return replace(chunk, timings=Timings(*(seconds / rows for seconds in astuple(chunk.timings))), rows=rows)


class _Rows:
    """Chunks that are generated pass by pass.

    Args:
        transformer: Computes the passes.
        chunks: One per stream, as `Stream.passes` returns it.
    """

    def __init__(self, transformer: CausalTransformer, chunks: Sequence[Generator[Pass, Any, Chunk]]) -> None:
        self._transformer = transformer
        self._chunks = chunks
        self._waiting: dict[int, Pass] = {}
        self._done: dict[int, Chunk | Exception] = {}

    def run(self) -> list[Chunk | Exception]:
        """Generate all chunks."""
        for row in range(len(self._chunks)):
            self._advance(row, None)
        while self._waiting:
            kinds: dict[tuple[object, ...], list[int]] = {}
            for row, each in self._waiting.items():
                kinds.setdefault(each.kind, []).append(row)
            for together in kinds.values():
                passes = [self._waiting.pop(row) for row in together]
                for row, flow in zip(together, self._flows(passes), strict=True):
                    self._advance(row, flow)
        return [self._done[row] for row in range(len(self._chunks))]

    def _advance(self, row: int, flow: Tensor | Exception | None) -> None:
        """Go on with a row until its next pass, its end or its failure."""
        try:
            self._waiting[row] = self._chunks[row].send(flow) if not isinstance(flow, Exception) else self._fail(flow)
        except StopIteration as end:
            self._done[row] = end.value
        except Exception as error:
            self._done[row] = error

    @staticmethod
    def _fail(error: Exception) -> Pass:
        raise error

    def _flows(self, passes: Sequence[Pass]) -> list[Tensor | Exception]:
        """The flows of passes of one kind: together, or one by one where that fails, so that one row fails alone."""
        try:
            return [*self._transformer.together(passes)]
        except Exception as error:
            return [error] if len(passes) == 1 else [flow for each in passes for flow in self._flows([each])]
