"""A director's debate for a visitor: what it is told of the run that plays, and how far the debate is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from fkv.debate.director import Direction, measured
from fkv.debate.scenes import Brief
from fkv.debate.transcript import Event
from fkv.models.base import VideoModel
from fkv.studio.media.protocol import decoded, unpack

from .limits import Limits
from .queue import Queue
from .run import Run
from .turn import WAIT, Listener, turn

RECENT = 24  # chunks whose prompts the director is told
SEEN = 4  # chunks that the oracle reads for it

Seen = Callable[[Event], None]
Direct = Callable[[Brief, Seen], Direction]


@dataclass(frozen=True)
class Progress:
    """How far a debate is.

    Args:
        state: queued, running, done or error.
        text: A status sentence.
        events: What happened so far.
        direction: What was agreed on, once it is.
    """

    state: str
    text: str
    events: tuple[Event, ...] = ()
    direction: Direction | None = None


def told_of(run: Run | None, model: VideoModel, readable: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a director is told of a run: its prompts, and measured facts.

    Args:
        run: None for none; nothing is told then.
        model: What generates.
        readable: Whether the oracle can read the frames.
    """
    files = [unpack(data) for data in run.chunks()[-RECENT:]] if run else []
    if not files:
        return (), ()
    prompts = dict.fromkeys(record["prompt"] for record, _ in files)
    first, *_ = files[-1][0]["streams"].values()
    held = {
        frame
        for group in first["xray"]
        for begin, end, _, segments in group["runs"]
        for frame in range(begin, end + 1)
        if segments
    }
    video = np.stack([decoded(jpeg) for record, jpegs in files[-SEEN:] for jpeg in _of_first(record, jpegs)])
    facts = measured(video if readable else None, held, model.video_frames_per_latent / model.fps)
    return tuple(prompts), facts


def _of_first(record: dict[str, object], jpegs: list[bytes]) -> list[bytes]:
    """The frames of the first stream of a chunk."""
    streams = record["streams"]
    return jpegs[: len(jpegs) // len(streams)] if isinstance(streams, dict) else jpegs


def debate(
    model: VideoModel,
    brief: Brief,
    direct: Direct,
    run: Run,
    queue: Queue,
    limits: Limits,
    listener: Listener | None = None,
) -> Generator[Progress, None, None]:
    """Hold a debate. Stopping `run` or closing the iterator ends it; an answer that is still out is not waited for.

    Args:
        model: What generates; for the log.
        brief: What is asked for.
        direct: `fkv.debate.director.direct` with its language model.
        run: Its control.
        queue: The queue to join; not that of the streams, so that a director works beside one.
        limits: The bounds that end it.
        listener: Whoever waits for it.

    Yields:
        How far it is, after every event.
    """
    last = Progress("queued", "")
    with turn("director", run, queue, limits, model, listener=listener, prompt=brief.idea) as current:
        for text in current.wait():
            yield Progress("queued", text)
        last = Progress("running", "The agents answer alone.")
        with closing(_told(direct, brief)) as items:
            for item in items:
                if isinstance(item, Event):
                    last = Progress("running", f"{item.when}: {item.who}.", (*last.events, item))
                if isinstance(item, Direction):
                    run.ended = "finished"
                    yield _done(item, last)
                    break
                yield last
                current.check()
    if current.problem:
        yield Progress("error", current.problem, last.events)


def _done(direction: Direction, last: Progress) -> Progress:
    transcript = direction.transcript
    if not direction.scenes:
        return Progress("error", f"No scenes: {direction.failures}. The stream goes on.", last.events, direction)
    text = (
        f"Agreed ({direction.author}): {transcript.calls} calls, {transcript.count('silence')} silent turns, "
        f"{transcript.tokens:,} tokens. Plain debate would have taken {direction.plain_tokens:,} tokens for answers of "
        "the same length (computed, not run)."
    )
    return Progress("done", text, last.events, direction)


class _Closed(Exception):
    """Nobody listens to the debate any more."""


def _told(direct: Direct, brief: Brief) -> Generator[Event | Direction | None, None, None]:
    """Hold a debate in a thread. Yields its events and its outcome, and None every `WAIT` seconds without any."""
    told: SimpleQueue[Event | Direction | Exception] = SimpleQueue()
    over = threading.Event()

    def seen(event: Event) -> None:
        if over.is_set():
            raise _Closed
        told.put(event)

    def work() -> None:
        try:
            told.put(direct(brief, seen))
        except Exception as error:
            told.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            try:
                item = told.get(timeout=WAIT)
            except Empty:
                yield None
                continue
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        over.set()
