"""Policies against each other on prompts x seeds: the work behind the Compare tab and its endpoint.

Streams of one prompt and seed take turns, chunk by chunk, on the same noise; or they share what they have in common,
where only pictures count. The first policy is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch

from fkv import policies
from fkv.analysis.held_out import held_out_scene, switched_scene
from fkv.analysis.oracle_checks import draws_world
from fkv.batch.shared import generate, paths_of
from fkv.comparison import interleave
from fkv.models.base import VideoModel
from fkv.stream import Chunk, Stream
from fkv.studio.media.filmstrip import Filmstrip, filmstrip
from fkv.world.captions import caption
from fkv.world.captions import parse as parse_scene

from .comparison_figures import Record, quality, stream_record
from .comparison_plan import ComparisonPlan, scenes
from .limits import Limits
from .queue import Queue
from .run import Run
from .turn import Listener, Turn, turn
from .zerogpu import lend

STRIPS = 4  # the newest runs, of which there are film strips

# Policies, prompt, seed, chunks, chunks to warm up with, whether streams share what they have in common -> the number
# of a stream and its next chunk, without latents.
Play = Callable[[Sequence[str], str, int, int, int, bool], Generator[tuple[int, Chunk], None, None]]


@dataclass(frozen=True)
class Progress:
    """How far a comparison is.

    Args:
        state: idle, queued, running, done or error.
        text: A status sentence.
        done: Chunks so far.
        records: Of complete streams, then of those under way.
        strips: Film strips of the newest runs.
    """

    state: str
    text: str
    done: int = 0
    records: tuple[Record, ...] = ()
    strips: tuple[Filmstrip, ...] = ()


def default_prompts(model: VideoModel, times: int = 1) -> list[str]:
    """Prompts that tell policies apart: one that changes on the way, and one that changes and returns.

    The model was not trained on their wording. A model that does not draw the toy world has its own examples.

    Args:
        model: What generates.
        times: How many times 7 chunks their scenes last.
    """
    if not draws_world(model):
        return list(model.examples[:2])
    (first, changed), (second, other) = [
        [caption(scene, held_out=True) for scene in (held_out_scene(i), switched_scene(i)[0])] for i in range(2)
    ]
    two, three, four = (f"[{chunks * times}c]" for chunks in (2, 3, 4))
    return [f"{first} {three} | {changed} {four}", f"{second} {two} | {other} {three} | {second} {two}"]


def player(model: VideoModel, limits: Limits) -> Play:
    """What steps the streams of one prompt and seed, where the model's GPU is."""

    def play(
        names: Sequence[str], prompt: str, seed: int, chunks: int, warmup: int = 0, shared: bool = False
    ) -> Generator[tuple[int, Chunk], None, None]:
        chosen = [policies.parse(name) for name in names]
        opening, story = scenes(prompt, chunks, model.chunk_seconds)

        def in_turns(chunks: int) -> Iterator[tuple[int, Chunk]]:
            streams = {name: Stream(model, policy, opening, seed) for name, policy in zip(names, chosen, strict=True)}
            return interleave(list(streams.values()), chunks, lambda index: story.apply(index, streams))

        for _ in in_turns(warmup):
            pass
        if shared:
            steps = generate(model, paths_of(model, chosen, opening, seed, chunks, story=story))
        else:
            steps = in_turns(chunks)
        for number, chunk in steps:
            yield number, replace(chunk, latents=torch.empty(0))

    def seconds(
        names: Sequence[str], prompt: str, seed: int, chunks: int, warmup: int = 0, shared: bool = False
    ) -> float:
        return min(limits.seconds, 5 + len(names) * (chunks + warmup) * model.chunk_seconds)

    return lend(play, seconds)


def compare(
    model: VideoModel,
    play: Play,
    plan: ComparisonPlan,
    run: Run,
    queue: Queue,
    limits: Limits,
    listener: Listener | None = None,
) -> Generator[Progress, None, None]:
    """Run a comparison. Stopping `run` ends it there, with the figures so far; closing the iterator frees the caches.

    Args:
        model: What generates.
        play: `player` for the model.
        plan: What to compare.
        run: Its control.
        queue: The queue to join.
        limits: The bounds that end it.
        listener: Whoever waits for it.

    Yields:
        How far it is, after every chunk.
    """
    last = Progress("queued", "")
    settings: dict[str, Any] = {
        "policies": plan.policies,
        "seed": plan.seeds,
        "asked": plan.total,
        "prompt": plan.prompts,
    }
    with turn("compare", run, queue, limits, model, total=plan.total, listener=listener, **settings) as current:
        for text in current.wait():
            yield Progress("queued", text)
        with closing(_measured(model, play, plan, current)) as steps:
            for last in steps:
                yield last
    if current.problem:
        yield replace(last, state="error", text=current.problem)


def _measured(model: VideoModel, play: Play, plan: ComparisonPlan, current: Turn) -> Generator[Progress, None, None]:
    records: list[Record] = []
    strips: tuple[Filmstrip, ...] = ()
    if current.run.stopped:
        yield Progress("done", current.over() or "")
        return
    if not plan.shared:
        yield Progress("running", f"Warming up {', '.join(plan.policies)}.")
    for number, (prompt, seed) in enumerate(plan.runs, 1):
        streams: list[list[Chunk]] = [[] for _ in plan.policies]
        running: list[Record] = []
        earlier = strips[1 - STRIPS :]
        warmup = int(number == 1 and not plan.shared)
        with closing(play(plan.policies, prompt, seed, plan.chunks, warmup, plan.shared)) as chunks:
            for which, chunk in chunks:
                streams[which].append(chunk)
                current.count(chunk, plan.policies[which])
                if current.chunks % len(streams) == 0:
                    by_policy = {name: own for name, own in zip(plan.policies, streams, strict=True) if own}
                    reference = None if plan.shared else streams[0]
                    running = [stream_record(name, prompt, seed, own, reference) for name, own in by_policy.items()]
                    strips = (*earlier, filmstrip(prompt, seed, by_policy, plan.chunks))
                at = f"chunk {len(streams[which])} of {plan.chunks}"
                text = f"{plan.policies[which]}, {at}, {plan.where(number)}."
                progress = Progress("running", text, current.chunks, (*records, *running), strips)
                yield progress
                if over := current.over():
                    yield replace(progress, state="done", text=f"{over} The figures cover the chunks so far.")
                    return
        readable = draws_world(model) and all(map(_whole, {chunk.prompt for chunk in streams[0]}))
        for known, stream in zip(running, streams, strict=True):
            records.append(known | quality(stream, streams[0], readable, model.transformer.events))
        current.forget_frames()
        yield Progress("running", f"Measured {plan.where(number)}.", current.chunks, tuple(records), strips)
    current.run.ended = "finished"
    text = f"Finished: {len(records)} streams of {plan.chunks} chunks{_saving(model, plan)}."
    yield Progress("done", text, current.chunks, tuple(records), strips)


def _saving(model: VideoModel, plan: ComparisonPlan) -> str:
    """What sharing saved, in words."""
    if not plan.shared:
        return ""
    found = plan.counts(model)
    return f", of which {found['chunks_computed']} of {found['chunks_asked']} were computed and the others shared"


def _whole(prompt: str) -> bool:
    """Whether a prompt names a whole scene of the toy world, so that the oracle can tell whether it is shown."""
    try:
        parse_scene(prompt)
    except ValueError:
        return False
    return True
