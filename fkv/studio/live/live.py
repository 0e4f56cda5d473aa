"""One run: step the streams, pack what they made, say in words what goes on."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fkv import policies, storyboard
from fkv.models.base import VideoModel
from fkv.parallel.lockstep import device_of
from fkv.roles import HeadRoles
from fkv.storyboard import Storyboard, at_threshold, happened
from fkv.stream import MAX_CHUNKS, Chunk, Stream, check_prompt, check_seed
from fkv.studio.media.protocol import pack, record

from .attention_probe import step
from .errors import explain, free, sentence
from .sessions import Limits, Queue, Run
from .telemetry import Tally, stream_ended

log = logging.getLogger(__name__)

WAIT = 1.0
"""Seconds after which a waiting run says again where it stands."""


@dataclass(frozen=True)
class Plan:
    """What a visitor asked for. chunks: None runs until it is stopped. policies and texts: stream name -> policy, and
    how the visitor wrote it. link: the query that brings the form back. roles: None for the model's."""

    prompt: str
    seed: int
    chunks: int | None
    policies: dict[str, policies.Policy]
    texts: dict[str, str]
    link: str
    roles: HeadRoles | None = None
    story: Storyboard = Storyboard()

    @classmethod
    def from_form(
        cls,
        *,
        prompt: str,
        seed: float | None,
        length: float | None,
        view: str,
        a: str,
        b: str,
        threshold: float | None = None,
        story: str = "",
        roles: HeadRoles | None = None,
        chunk_seconds: float | None = None,
    ) -> Plan:
        """A plan from what the page holds. threshold : of head roles, None for those that the model has, which are `roles`.
        chunk_seconds : of video, for a storyboard with durations; its opening prompt replaces `prompt`.

        Raises ValueError with a sentence for the visitor.
        """
        prompt, story = check_prompt(words(prompt, "the prompt")), words(story, "the storyboard").strip()
        a, b = words(a, "the policy of A").strip(), words(b, "the policy of B").strip()
        if view not in ("A", "B", "AB"):
            raise ValueError(f"the view must be A, B or AB, not {view!r:.40}")
        texts = {name: text for name, text in (("A", a), ("B", b)) if name in view}
        length, seed = whole(length, "the number of chunks"), whole(seed, "the seed")
        chunks = _length(length)
        own = None if threshold is None else at_threshold(roles, threshold)
        timeline = storyboard.parse(story, own or roles, chunks, chunk_seconds)
        prompt = timeline.opening or prompt
        link = {
            "prompt": prompt,
            "seed": seed,
            "length": length,
            "view": view,
            "a": a,
            "b": b,
            "threshold": threshold,
            "story": storyboard.write(timeline.without_opening()),
        }
        link = urlencode({name: value for name, value in link.items() if value not in (None, "")})
        chosen = {name: policies.parse(text) for name, text in texts.items()}
        return cls(prompt, check_seed(seed), chunks, chosen, texts, link, own, timeline)

    @property
    def words(self) -> str:
        return _side_by_side(self.texts.values())


def _side_by_side(names: Iterable[str]) -> str:
    names = list(names)
    return f"{' and '.join(names)} side by side, same noise" if len(names) > 1 else names[0]


def whole(number: Any, what: str) -> int:
    """A whole number from a form. Raises ValueError for anything else."""
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not math.isfinite(number)
        or number != int(number)
    ):
        raise ValueError(f"{what} must be a whole number, not {'empty' if number is None else repr(number)[:40]}")
    return int(number)


def words(text: Any, what: str) -> str:
    """A text from a form. Raises ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"{what} must be a text, not {'empty' if text is None else repr(text)[:40]}")
    return text


def _length(chunks: int) -> int | None:
    """Chunks of a run; None for 0, which is until it is stopped."""
    if not 0 <= chunks <= MAX_CHUNKS:
        raise ValueError(
            f"the number of chunks must be 0, for a run that goes on until you stop it, or at most {MAX_CHUNKS:,}, not {chunks:,}"
        )
    return chunks or None


Generate = Callable[[Plan, Run, Queue, Limits, dict[str, Tally]], Iterator[tuple[str, str]]]
"""`guarded` for a model."""


def live(
    model: VideoModel, plan: Plan, run: Run, queue: Queue, limits: Limits, generate: Generate | None = None
) -> Iterator[dict[str, Any]]:
    """Run a plan and yield manifests: the run's key, how many chunks there are to fetch, its state and a status sentence.

    States: `queued`, `live`, `paused`, then `done` or `error`. Closing the iterator frees the caches.
    generate : what does the work, by default `guarded` here.
    """
    generate = generate or partial(guarded, model)
    link, run.source = (
        f"{urlencode({'model': model.name})}&{plan.link}",
        f"live on {device_of(model, len(plan.policies))}",
    )

    def manifest(state: str, text: str) -> dict[str, Any]:
        return {
            "run": run.key,
            "began": run.began,
            "chunks": run.count,
            "state": state,
            "text": text,
            "fps": model.fps,
            "source": run.source,
            "link": link,
            "streams": list(plan.policies),
            "policies": plan.texts,
        }

    run.live, turned, tallies = True, None, {name: Tally() for name in plan.policies}
    try:
        with queue.join(run):
            while (place := queue.place(run, WAIT)) and not run.stopped:
                yield manifest("queued", f"Place {place} in the queue: this machine runs one stream at a time.")
            turned = time.monotonic()
            for state, text in generate(plan, run, queue, limits, tallies):
                yield manifest(state, text)
    except ValueError as error:
        run.ended = "refused"
        yield manifest("error", sentence(error))
    finally:
        run.live, run.ended, now = False, run.ended or "left", time.monotonic()
        stream_ended(
            ended=run.ended,
            kind="live",
            model=model.name,
            policies=plan.texts,
            seed=plan.seed,
            asked=plan.chunks,
            chunks=run.count,
            bytes=run.made_bytes,
            waited=round((turned or now) - run.began, 3),
            seconds=round(now - (turned or now), 3),
            paused=round(run.paused_seconds, 3),
            streams={name: tally.figures() for name, tally in tallies.items()},
            prompt=plan.prompt,
        )


def guarded(
    model: VideoModel, plan: Plan, run: Run, queue: Queue, limits: Limits, tallies: dict[str, Tally]
) -> Iterator[tuple[str, str]]:
    """`_generate`, whose failures become sentences once its memory is given back."""
    problem = ""
    try:
        yield from _generate(model, plan, run, queue, limits, tallies)
    except Exception as error:
        run.ended, problem = explain(error, _chunks(run.count))
        if run.ended == "failed":
            log.exception("a run failed")
    finally:
        free(model.device)
    if problem:
        yield "error", problem


def _generate(
    model: VideoModel, plan: Plan, run: Run, queue: Queue, limits: Limits, tallies: dict[str, Tally]
) -> Iterator[tuple[str, str]]:
    def done(ended: str, text: str) -> tuple[str, str]:
        run.ended = ended
        return "done", text

    if run.stopped:
        yield done("stopped", "Stopped before the first chunk.")
        return
    yield "live", f"Starting {plan.words}."
    streams = {
        name: Stream(model, policy, plan.prompt, plan.seed, plan.roles) for name, policy in plan.policies.items()
    }
    hashes = {name: hashlib.sha256() for name in streams}
    began, paused, shown, notice = time.monotonic(), run.paused_seconds, 0.0, ""
    while plan.chunks is None or run.count < plan.chunks:
        elapsed = time.monotonic() - began - (run.paused_seconds - paused)
        run.rest(shown - limits.lead - elapsed)
        while run.paused and not _overdue(run, queue, limits, began):
            yield "paused", f"Paused after {_chunks(run.count)}; ends by itself after {_span(limits.pause)}."
            run.wait_paused(min(WAIT, limits.pause))
        if run.stopped:
            yield done("stopped", f"Stopped after {_chunks(run.count)}.")
            return
        if reason := _overdue(run, queue, limits, began):
            yield done(*reason)
            return
        for change in plan.story.changes(run.count):
            run.ask(change)
        notice = _change(streams, run, notice)
        turn = list(streams) if run.count % 2 == 0 else list(streams)[::-1]
        made, heads = step(streams, turn, run.watch)
        chunks = {name: made[name] for name in streams}
        run.kv_bytes = sum(chunk.kv_bytes for chunk in chunks.values())
        for name, chunk in chunks.items():
            hashes[name].update(chunk.video.tobytes())
            tallies[name].add(chunk)
        run.put(_file(streams, chunks, {name: each.hexdigest()[:16] for name, each in hashes.items()}, heads))
        shown += next(iter(chunks.values())).video_frames / model.fps
        total = f" of {plan.chunks}" if plan.chunks else ""
        what = _side_by_side(policies.write(stream.policy) for stream in streams.values())
        yield "live", f"Streaming chunk {run.count}{total}: {what}, seed {plan.seed}. {notice}".strip()
    yield done("finished", f"Finished: {_chunks(run.count)}, {shown:.1f} s of video, {plan.words}.")


def _overdue(run: Run, queue: Queue, limits: Limits, began: float) -> tuple[str, str] | None:
    """Why a run whose turn began then must end, in a word and a sentence; None while it may go on."""
    begins, age = f"Ended after {_chunks(run.count)}: ", time.monotonic() - began
    if run.paused_for > limits.pause:
        return "pause limit", f"{begins}the pause lasted longer than {_span(limits.pause)}."
    if age > limits.seconds:
        return "time limit", f"{begins}a run lasts at most {_span(limits.seconds)} here."
    if age > limits.turn and queue.waiting:
        return (
            "turn",
            f"{begins}others wait, and a turn lasts at most {_span(limits.turn)} then. Go live stands in line again.",
        )
    if run.idle > limits.idle:
        return "idle", f"{begins}nobody fetched the video for {_span(limits.idle)}."
    if run.kv_bytes > limits.kv:
        return (
            "kv limit",
            f"{begins}its KV cache grew to the {limits.kv / 1e6:,.0f} MB that a run may hold here; forcing-kv holds less.",
        )
    return None


def _change(streams: dict[str, Stream], run: Run, notice: str) -> str:
    """Pass on what the visitor changed. Returns what to say of changes that cannot be made, or not in full; `notice`, what was
    said before, while nothing new is asked for."""
    said = []
    if not (asked := run.take_changes()):
        return notice
    for change in asked:
        try:
            said.append(change.apply(streams))
        except ValueError as error:
            said.append(f"Left as it was: {error}.")
    return " ".join(filter(None, said))


def _file(
    streams: dict[str, Stream], chunks: dict[str, Chunk], digests: dict[str, str], heads: dict[str, Any] | None
) -> bytes:
    first = next(iter(chunks.values()))
    records = {name: record(chunk, streams[name], digests[name]) for name, chunk in chunks.items()}
    stream = next(iter(streams.values()))
    facts = {
        "index": first.index,
        "frame": first.frames[-1],
        "per_latent": stream.model.video_frames_per_latent,
        "prompt": first.prompt,
        "grid": [stream.geometry.rows, stream.geometry.cols],
        "events": happened(streams, chunks),
        "streams": records,
    }
    return pack(facts | ({"heads": heads} if heads else {}), [chunk.video for chunk in chunks.values()])


def _chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count} chunks"


def _span(seconds: float) -> str:
    """A length of time in words."""
    count, unit = (seconds, "second") if seconds < 60 else (seconds / 60, "minute")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"
