"""Streams to look at, not to time: what several of them have in common is computed once, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from fkv.models.base import VideoModel
from fkv.models.memory import free_memory
from fkv.policies import Policy, write
from fkv.roles import HeadRoles
from fkv.storyboard import NO_STORY, Storyboard
from fkv.stream import Chunk

from . import plan
from .jobs import Job, Path
from .memory import Memory, claims
from .run import Batch, Done


def paths_of(
    model: VideoModel,
    policies: Iterable[Policy],
    prompt: str,
    seed: int,
    chunks: int,
    roles: HeadRoles | None = None,
    story: Storyboard = NO_STORY,
) -> list[Path]:
    """Jobs that differ in their policy; arguments as of `fkv.comparison.compare`."""
    jobs = [
        Job(f"stream-{number}", prompt, "", write(policy), seed, chunks) for number, policy in enumerate(policies, 1)
    ]
    return [Path.along(job, prompt, story, chunks, model, roles) for job in jobs]


def generate(
    model: VideoModel, paths: Sequence[Path], say: Callable[[str], None] = lambda sentence: None
) -> Iterator[tuple[int, Chunk]]:
    """Generate jobs, as many with a common past at once as half of the free memory holds.

    Args:
        model: The model of all jobs.
        paths: The jobs, of different names.
        say: Called with a sentence where a job follows only a part of its storyboard.

    Yields:
        Which job, and its next chunk; its video is there where the model has a decoder.

    Raises:
        Exception: What a job raises ends all of them.
    """
    memory = Memory(model, share=False)
    budget = max(free_memory(str(model.device))["device"] // 2, *map(memory.of_path, paths))
    number_of = {path.job.name: number for number, path in enumerate(paths)}
    states: dict[str, Any] = {}
    batch = Batch(model, claims(plan.grow(paths), memory, budget), 1, budget, False, say)
    for each in batch.run():
        if isinstance(each, Done):
            if each.error:
                raise each.error
            states.pop(each.path.job.name, None)
            continue
        names = {path.policy.name for path in each.paths}
        for path in each.paths:
            chunk = replace(each.chunk, policy=path.policy.name) if len(names) > 1 else each.chunk
            if model.decoder is not None:
                state = states.get(path.job.name)
                video, states[path.job.name] = model.decoder(chunk.latents[:1], state)
                chunk = replace(chunk, video=video)
            yield number_of[path.job.name], chunk


def counts(paths: Sequence[Path]) -> dict[str, Any]:
    """What a report says of streams that `generate` generates: that none is timed, and chunks asked and computed."""
    computed = sum(node.computed for node in plan.grow(paths))
    return {"timing": "shared", "chunks_asked": plan.asked(paths), "chunks_computed": computed}
