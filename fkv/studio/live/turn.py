"""One run's turn on the machine, of whatever kind: the queue, the limits, failures in plain words, freed memory, one
log record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from fkv.models.base import VideoModel
from fkv.stream import Chunk
from fkv.studio.errors import Disconnected, explain, free, release

from .limits import Limits, span
from .queue import Queue
from .run import Run
from .telemetry import Tally, log_run

log = logging.getLogger(__name__)

Kind = Literal["live", "compare", "clip", "profile", "director", "explore"]

WAIT = 1.0  # seconds between two status reports of a run that waits or pauses
WORK: dict[Kind, str] = {
    "live": "stream",
    "compare": "comparison",
    "clip": "clip",
    "profile": "profile",
    "director": "debate",
    "explore": "search",
}
REJOIN = {"live": "Press Go live to rejoin the queue."}  # what a visitor may do once the turn is over


class Over(Exception):
    """The run must end now; the message is a sentence that says why."""


class Listener(Protocol):
    """Whoever a run works for."""

    @property
    def left(self) -> bool:
        """Whether nobody waits for the run any more."""


@dataclass
class Turn:
    """A run from joining the queue to its log record.

    Args:
        kind: What kind of run it is.
        run: Its control and its encoded chunks; also its ticket in the queue.
        queue: The queue that it joins.
        limits: The bounds that end it.
        total: Chunks that it will generate, None when it is endless or not known yet.
        listener: Whoever it works for, None where fetched chunks tell (`Run.idle`).
        shares: Whether it can share the machine, see `Queue.join`.
        chunks: Chunks generated so far.
        began: When the turn came, by the monotonic clock; None while it waits, and where it was stopped before.
        tallies: Frames and seconds of each stream, for the log.
        problem: A sentence for the visitor once the run has failed.
    """

    kind: Kind
    run: Run
    queue: Queue
    limits: Limits
    total: int | None = None
    listener: Listener | None = None
    shares: bool = False
    chunks: int = 0
    began: float | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    problem: str = ""
    _kv_bytes: dict[str, int] = field(default_factory=dict, repr=False)
    _place: ExitStack = field(default_factory=ExitStack, repr=False)

    def wait(self) -> Iterator[str]:
        """Join the queue and yield a status sentence about once a second until the turn comes or the run is stopped.

        Raises:
            ValueError: If too many wait already.
            Disconnected: If the listener leaves.
        """
        self._place.enter_context(self.queue.join(self.run, self.shares))
        while (place := self.queue.place(self.run, WAIT)) and not self.run.stopped:
            self._check_listener()
            work = "does one thing" if self.queue.together == 1 else f"serves at most {self.queue.together} visitors"
            bound, seconds = self.queue.expected(place, self.limits.turn)
            yield f"Place {place} in the queue: this machine {work} at a time. The wait is {bound} {_rounded(seconds)}."
        if not self.run.stopped:
            self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the turn came, 0 while it waits."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    @property
    def progress(self) -> str:
        """Chunks so far, in words; seconds of a debate, which has none."""
        return span(round(self.seconds)) if self.kind == "director" else counted(self.chunks, self.total)

    def exceeded(self) -> tuple[str, str] | None:
        """The limit that the run exceeds, see `Limits.exceeded`; None while it may go on."""
        return self.limits.exceeded(self.run, self.seconds, self.queue.waiting > 0)

    def over(self) -> str | None:
        """Say why the run must end now, and note the reason in `run.ended`; None while it may go on.

        Every run of every kind asks this after each chunk.

        Raises:
            Disconnected: If the listener has left.
        """
        self._check_listener()
        if self.run.stopped:
            self.run.ended = "stopped"
            return f"Stopped after {self.progress}."
        exceeded = self.exceeded()
        if exceeded is None:
            return None
        self.run.ended, reason = exceeded
        rejoin = f" {REJOIN[self.kind]}" if self.run.ended == "turn" and self.kind in REJOIN else ""
        return f"Stopped after {self.progress}: {reason}.{rejoin}"

    def check(self) -> None:
        """Raise `Over` with what `over` says, for runs that have no use for a part of their work."""
        if text := self.over():
            raise Over(text)

    def count(self, chunk: Chunk, name: str = "A") -> None:
        """Count a chunk of a stream, and its frames as kept."""
        self.chunks += 1
        self._kv_bytes[name] = chunk.kv_bytes
        self.run.kv_bytes = sum(self._kv_bytes.values())
        self.run.frame_bytes += 0 if chunk.video is None else chunk.video.nbytes

    def forget_frames(self) -> None:
        """The frames and caches of the streams so far are no longer kept."""
        self._kv_bytes.clear()
        self.run.frame_bytes = 0

    def _check_listener(self) -> None:
        if self.listener is not None and self.listener.left:
            raise Disconnected

    @contextmanager
    def explained(self, device: torch.device) -> Iterator[None]:
        """Turn a failure of the block into `problem` and `run.ended`; free the memory of the run however the block
        ends."""
        try:
            yield
        except Over as over:
            self.problem = str(over)
            release(over)
        except Exception as error:
            self.run.ended, self.problem = explain(error, self.progress, WORK[self.kind])
            if self.run.ended == "failed":
                log.exception("a %s failed", WORK[self.kind])
            release(error)
        finally:
            free(device)


@contextmanager
def turn(
    kind: Kind,
    run: Run,
    queue: Queue,
    limits: Limits,
    model: VideoModel,
    *,
    total: int | None = None,
    listener: Listener | None = None,
    shares: bool = False,
    **settings: Any,
) -> Iterator[Turn]:
    """Give a run its turn: the block waits for it with `Turn.wait`, works, and checks `Turn.over` between chunks.

    A failure of the block ends in `Turn.problem`, to be told once the block is left: by then the memory of the run is
    free and its place in the queue given up.

    Args:
        kind: What kind of run it is.
        run: Its control; `run.ended` tells how it ended, "left" unless the block says otherwise.
        queue: The queue to join.
        limits: The bounds that end it.
        model: What generates.
        total: Chunks that it will generate, None when it is endless or not known yet.
        listener: Whoever it works for, None where fetched chunks tell.
        shares: Whether it can share the machine, see `Queue.join`.
        settings: What else the log record holds, such as the seed.
    """
    joined = time.monotonic()
    current = Turn(kind, run, queue, limits, total, listener, shares)

    def record() -> None:
        now = time.monotonic()
        began = now if current.began is None else current.began
        run.live = False
        run.ended = run.ended or "left"
        if current.began is not None:
            queue.took(now - began)
        log_run(
            ended=run.ended,
            kind=kind,
            model=model.name,
            **settings,
            chunks=current.chunks,
            bytes=run.encoded_bytes,
            waited=round(began - joined, 3),
            seconds=round(now - began, 3),
            paused=round(run.paused_seconds, 3),
            streams={name: tally.figures() for name, tally in current.tallies.items()},
        )

    run.live = True
    with current._place as place:
        place.callback(record)  # last, once the place in the queue is given up
        with current.explained(model.device):
            yield current


def _rounded(seconds: float) -> str:
    """A wait in words, no more precise than it is known."""
    return span(max(10, round(seconds, -1)) if seconds < 55 else 60 * round(seconds / 60))


def counted(chunks: int, total: int | None = None) -> str:
    """A number of chunks in words, as in "1 chunk" and "3 of 12 chunks"."""
    if total is None:
        return "1 chunk" if chunks == 1 else f"{chunks:,} chunks"
    return f"{chunks:,} of {total:,} chunks"
