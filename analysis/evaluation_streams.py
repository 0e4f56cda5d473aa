"""The streams of an evaluation: one by one, or at once with what they have in common generated once."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from fkv.batch.jobs import Job
from fkv.batch.jobs import Path as JobPath
from fkv.batch.shared import generate
from fkv.models.base import VideoModel
from fkv.policies import parse
from fkv.storyboard import NO_STORY, Storyboard
from fkv.stream import Chunk, Stream
from fkv.world import FPS
from fkv.world.story import CHUNK

from .held_out import held_out_text
from .prompt_switch import switch_chunks, switch_story

REFERENCE = "full"


def chunks_of(seconds: float) -> int:
    """Return how many chunks have `seconds` of video."""
    return math.ceil(seconds * FPS / CHUNK)


def run_stream(
    model: VideoModel,
    policy: str,
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
    text: str | None = None,
) -> list[Chunk]:
    """Stream `seconds` of a prompt and return the chunks, without their latents.

    The prompt is the storyboard's opening, else `text`, else the held-out one of number `prompt`.
    """
    text = story.opening or text or held_out_text(prompt)
    return stream_along(model, policy, text, seed, chunks_of(seconds), story)


def stream_along(model: VideoModel, policy: str, text: str, seed: int, count: int, story: Storyboard) -> list[Chunk]:
    """Stream `count` chunks of a prompt along a storyboard and return them, without their latents."""
    stream = Stream(model, parse(policy), text, seed)
    chunks = []
    for index in range(count):
        for sentence in story.apply(index, {policy: stream}):
            tqdm.write(f"chunk {index + 1}: {sentence}", file=sys.stderr)
        chunks.append(replace(stream.step(), latents=torch.empty(0)))
    return chunks


def run_switch(model: VideoModel, policy: str, prompt: int, seed: int) -> list[Chunk]:
    """Stream prompt `prompt` along its `switch_story`."""
    return stream_along(model, policy, held_out_text(prompt), seed, switch_chunks(), switch_story(prompt))


def paths_of(
    model: VideoModel,
    policies: Sequence[str],
    pending: Sequence[str],
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
) -> dict[tuple[str, bool], JobPath]:
    """Return the streams behind the records of a prompt and a seed, by policy and whether they are switched."""
    text = story.opening or held_out_text(prompt)
    needed = [policy for policy in policies if policy in pending or policy == REFERENCE]
    wanted = {(policy, False): (chunks_of(seconds), story) for policy in needed}
    if not story.cues:
        switch = (switch_chunks(), switch_story(prompt))
        wanted |= {(policy, True): switch for policy in pending}
    return {
        (policy, switched): JobPath.along(
            Job(f"stream-{number}", text, "", policy, seed, count), text, changes, count, model
        )
        for number, ((policy, switched), (count, changes)) in enumerate(wanted.items())
    }


def at_once(model: VideoModel, paths: dict[tuple[str, bool], JobPath]) -> dict[tuple[str, bool], list[Chunk]]:
    """Generate streams, what they have in common once, and return their chunks without latents."""
    made: dict[tuple[str, bool], list[Chunk]] = {key: [] for key in paths}
    keys = list(paths)

    def say(sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    for which, chunk in generate(model, list(paths.values()), say):
        made[keys[which]].append(replace(chunk, latents=torch.empty(0)))
    return made
