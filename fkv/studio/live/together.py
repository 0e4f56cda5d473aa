"""The streams of several visitors in one pass: each has its own chunks, cache and limits; they share the products."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from fkv.parallel.rows import step_rows
from fkv.storyboard import Streams
from fkv.stream import Chunk, Stream, Timings

from . import attention_probe, model_thread
from .attention_probe import Watch

GATHER = 0.1  # seconds in which a visitor whose chunk is ready may ask for the next one, to be in the same pass


@dataclass(eq=False)
class _Request:
    """A stream that wants its next chunk."""

    stream: Stream
    made: Chunk | Exception | None = None


class Together:
    """Steps the streams of runs that wait for a chunk at the same time.

    Args:
        most: Streams of a pass, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[_Request] = []
        self._served: WeakKeyDictionary[Stream, float] = WeakKeyDictionary()
        self._moved = threading.Condition()
        self.busy = ()  # no stream goes on while others wait

    def close(self) -> None:
        """A run has ended; others go on."""

    def step(
        self, streams: Streams, turn: Sequence[str], watch: Watch | None, seconds: float | None = None
    ) -> tuple[dict[str, Chunk], dict[str, dict[str, Any]]]:
        """Generate as `attention_probe.step` does, in the model's thread; called in the thread of a run.

        Two streams, and one that is watched, have a pass to themselves. The timings of others are those of the pass,
        which is how long the visitor has waited.
        """
        if len(streams) > 1 or watch is not None:
            return model_thread.call(attention_probe.step, streams, turn, watch)
        ((name, stream),) = streams.items()
        request = _Request(stream)
        with self._moved:
            self._waiting.append(request)
            self._moved.notify_all()
        return {name: model_thread.call(self._serve, request)}, {}

    def _serve(self, request: _Request) -> Chunk:
        """Step all streams that wait, until that of the request has been stepped."""
        while request.made is None:
            with self._moved:
                while len(self._waiting) < self._most and (left := self._left()) > 0:
                    self._moved.wait(left)
                together, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            made = step_rows([each.stream for each in together])
            with self._moved:
                for each, chunk in zip(together, made, strict=True):
                    each.made = _whole(chunk) if isinstance(chunk, Chunk) else chunk
                    self._served[each.stream] = time.monotonic()
        if isinstance(request.made, Exception):
            raise request.made
        return request.made

    def _left(self) -> float:
        """Seconds for which to wait for visitors whose chunk has just become ready."""
        waiting = {each.stream for each in self._waiting}
        served = [at for stream, at in self._served.items() if stream not in waiting]
        return max(served, default=0.0) + GATHER - time.monotonic()


def _whole(chunk: Chunk) -> Chunk:
    """A chunk with the timings of its pass in place of its share of them."""
    return replace(chunk, timings=Timings(*(seconds * chunk.rows for seconds in astuple(chunk.timings))))
