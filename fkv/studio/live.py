"""One run: step the streams in turn, pack what they made, say in words what goes on."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .. import policies
from ..models.base import VideoModel
from ..stream import Chunk, Stream, check_chunks, check_prompt, check_seed
from .sessions import Limits, Line, Run
from .wire import pack, record

log = logging.getLogger(__name__)

WAIT = 1.0
"""Seconds after which a waiting run says again where it stands."""


@dataclass(frozen=True)
class Plan:
    """What a visitor asked for. chunks: None runs until it is stopped. policies and texts: stream name -> policy, and
    how the visitor wrote it. link: the query that brings the form back."""

    prompt: str
    seed: int
    chunks: int | None
    policies: dict[str, policies.Policy]
    texts: dict[str, str]
    link: str

    @classmethod
    def of(cls, prompt: str, seed: float | None, length: float | None, view: str, a: str, b: str) -> Plan:
        """A plan from what the page holds. Raises ValueError with a sentence for the visitor."""
        texts = {name: text.strip() for name, text in (("A", a), ("B", b)) if name in view}
        length, seed = _whole(length, "the length"), _whole(seed, "the seed")
        link = urlencode({"prompt": prompt.strip(), "seed": seed, "length": length, "view": view, "a": a.strip(), "b": b.strip()})
        chosen = {name: policies.parse(text) for name, text in texts.items()}
        return cls(check_prompt(prompt), check_seed(seed), check_chunks(length) if length else None, chosen, texts, link)

    @property
    def words(self) -> str:
        names = list(self.texts.values())
        return f"{' and '.join(names)} side by side, same noise" if len(names) > 1 else names[0]


def _whole(number: float | None, what: str) -> int:
    if number is None or number != int(number):
        raise ValueError(f"{what} must be a whole number, not {'empty' if number is None else number}")
    return int(number)


def live(model: VideoModel, plan: Plan, run: Run, line: Line, limits: Limits) -> Iterator[dict[str, Any]]:
    """Run a plan and yield manifests: the run's key, how many chunks there are to fetch, its state and a status sentence.

    States: `queued`, `live`, `paused`, then `done` or `error`. Closing the iterator frees the caches.
    """

    def manifest(state: str, text: str) -> dict[str, Any]:
        return {
            "run": run.key, "began": run.began, "chunks": run.count, "state": state, "text": text, "fps": model.fps, "link": plan.link,
            "streams": list(plan.policies), "policies": plan.texts,
        }  # fmt: skip

    run.live = True
    try:
        with line.queue(run):
            while (place := line.place(run, WAIT)) and not run.stopped:
                yield manifest("queued", f"Place {place} in the queue: this machine runs one stream at a time.")
            for state, text in _generate(model, plan, run, limits):
                yield manifest(state, text)
    except ValueError as error:
        yield manifest("error", sentence(error))
    except Exception as error:
        log.exception("a run failed")
        yield manifest("error", f"The stream broke off after {_chunks(run.count)}: {type(error).__name__}. Go live starts a new one.")
    finally:
        run.live = False


def _generate(model: VideoModel, plan: Plan, run: Run, limits: Limits) -> Iterator[tuple[str, str]]:
    if run.stopped:
        yield "done", "Stopped before the first chunk."
        return
    yield "live", f"Starting {plan.words}."
    streams = {name: Stream(model, policy, plan.prompt, plan.seed) for name, policy in plan.policies.items()}
    hashes = {name: hashlib.sha256() for name in streams}
    began, paused, shown = time.monotonic(), run.paused_seconds, 0.0
    while plan.chunks is None or run.count < plan.chunks:
        elapsed = time.monotonic() - began - (run.paused_seconds - paused)
        run.rest(shown - limits.lead - elapsed)
        if run.paused:
            yield "paused", f"Paused after {_chunks(run.count)}; ends by itself after {_minutes(limits.pause)}."
            if not run.wait_paused(limits.pause):
                yield "done", f"Ended after {_chunks(run.count)}: the pause lasted longer than {_minutes(limits.pause)}."
                return
        if run.stopped:
            yield "done", f"Stopped after {_chunks(run.count)}."
            return
        if elapsed > limits.seconds:
            yield "done", f"Ended after {_chunks(run.count)}: a run lasts at most {_minutes(limits.seconds)} here."
            return
        notice = _change(streams, run)
        turn = list(streams) if run.count % 2 == 0 else list(streams)[::-1]
        made = {name: streams[name].step() for name in turn}
        chunks = {name: made[name] for name in streams}
        for name, chunk in chunks.items():
            hashes[name].update(chunk.video.tobytes())
        run.put(_file(streams, chunks, {name: each.hexdigest()[:16] for name, each in hashes.items()}))
        shown += next(iter(chunks.values())).video_frames / model.fps
        total = f" of {plan.chunks}" if plan.chunks else ""
        yield "live", f"Streaming chunk {run.count}{total}: {plan.words}, seed {plan.seed}.{notice}"
    yield "done", f"Finished: {_chunks(run.count)}, {shown:.1f} s of video, {plan.words}."


def _change(streams: dict[str, Stream], run: Run) -> str:
    """Pass on what the visitor changed. Returns what to say of a change that cannot be made."""
    notice = ""
    for change in run.take_changes():
        try:
            change(streams)
        except ValueError as error:
            notice = f" Left as it was: {error}."
    return notice


def _file(streams: dict[str, Stream], chunks: dict[str, Chunk], digests: dict[str, str]) -> bytes:
    first = next(iter(chunks.values()))
    records = {name: record(chunk, streams[name], digests[name]) for name, chunk in chunks.items()}
    facts = {"index": first.index, "frame": first.frames[-1], "prompt": first.prompt, "events": list(first.events), "streams": records}
    return pack(facts, [chunk.video for chunk in chunks.values()])


def sentence(error: ValueError) -> str:
    """An error message as a sentence for the visitor."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count} chunks"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds != 60 else "1 minute"
