"""Policies side by side: same noise, same machine, chunk by chunk in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fkv.models.base import VideoModel
from fkv.policies.full import Full

from .policies import Policy, write
from .report import FPS_MEANING, stream_record
from .roles import HeadRoles
from .storyboard import Storyboard
from .storyboard import write as write_story
from .stream import Chunk, Stream

NO_STORY = Storyboard()


def psnr(a: np.ndarray, b: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of two uint8 videos in dB; None when they are equal."""
    error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean()
    return None if error == 0 else float(10 * np.log10(255**2 / error))


def interleave(
    streams: Sequence[Stream], chunks: int, before: Callable[[int], None] = lambda index: None
) -> Iterator[tuple[int, Chunk]]:
    """Step every stream `chunks` times in turn; who goes first alternates. Yields which stream, and its chunk.

    `before` is called with the index of each chunk before any stream generates it.
    """
    for index in range(chunks):
        before(index)
        turn = range(len(streams)) if index % 2 == 0 else reversed(range(len(streams)))
        for which in turn:
            yield which, streams[which].step()


def moments(chunks: int, most: int = 8) -> tuple[int, ...]:
    """Of so many chunks the numbers, from 1, of `most` at most, evenly spread from the first to the last."""
    return tuple(np.unique(np.linspace(1, chunks, min(chunks, most)).round().astype(int)).tolist())


def speed_ratios(reference: Sequence[Chunk], own: Sequence[Chunk]) -> list[float]:
    """The reference's seconds / these, per chunk, of all stages but text and decoding."""
    return [other.timings.generate / chunk.timings.generate for other, chunk in zip(reference, own)]


def compare(
    model: VideoModel,
    policies: Sequence[Policy],
    prompt: str,
    seed: int,
    chunks: int,
    roles: HeadRoles | None = None,
    warmup: int = 1,
    seen: Callable[[str, Chunk], None] = lambda label, chunk: None,
    story: Storyboard = NO_STORY,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Run policies interleaved on the same noise and compare each with `full`, which joins them when it is not listed.

    `ratio_denoise` is full / policy in seconds of denoising, context pass and rebuilds, per chunk and as the median;
    `ratio_kv_bytes` full / policy at the last chunk; `psnr_vs_full` per chunk in dB, None where the pictures are equal.
    The first `warmup` chunks of a separate short run are thrown away. `seen` is called with every other one, and whose it is.
    `story` is applied to all streams; `say` is called with a sentence where a stream follows only a part of it.
    """
    policies = list(policies) if any(isinstance(policy, Full) for policy in policies) else [Full(), *policies]
    labels = labels_of(policies)
    for _ in interleave([Stream(model, policy, prompt, seed, roles) for policy in policies], warmup):
        pass
    made: list[list[Chunk]] = [[] for _ in policies]
    streams = {
        label: Stream(model, policy, prompt, seed, roles) for label, policy in zip(labels, policies, strict=True)
    }

    def before(index: int) -> None:
        for sentence in story.apply(index, streams):
            say(f"chunk {index + 1}: {sentence}")

    for which, chunk in interleave(list(streams.values()), chunks, before):
        made[which].append(chunk)
        seen(labels[which], chunk)
    reference = made[next(i for i, policy in enumerate(policies) if isinstance(policy, Full))]
    results = {}
    for label, own in zip(labels, made):
        ratios = speed_ratios(reference, own)
        results[label] = stream_record(own, model, seed, model.device) | {
            "policy": label,
            "ratio_denoise": {"per_chunk": ratios, "median": statistics.median(ratios)},
            "ratio_kv_bytes": reference[-1].kv_bytes / own[-1].kv_bytes,
            "psnr_vs_full": [None if c.video is None else psnr(f.video, c.video) for f, c in zip(reference, own)],
        }
    return {
        "model": model.name,
        "prompt": prompt,
        "seed": seed,
        "chunks": chunks,
        **({"story": write_story(story)} if story.cues else {}),
        "reference": "full",
        "fps_meaning": FPS_MEANING,
        "policies": results,
    }


def labels_of(policies: Sequence[Policy]) -> list[str]:
    """A name for each policy, with its parameters where two share one, numbered where one is listed twice."""
    plain = [policy.name for policy in policies]
    names = [name if plain.count(name) == 1 else write(policy) for name, policy in zip(plain, policies)]
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]
