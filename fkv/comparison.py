"""Policies side by side: same noise, same machine, chunk by chunk in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fkv.models.base import VideoModel
from fkv.policies.full import Full

from .batch.shared import counts, generate, paths_of
from .policies import Policy, write
from .report import FPS_MEANING, stream_record, without_speeds
from .roles import HeadRoles
from .storyboard import NO_STORY, Storyboard
from .storyboard import write as write_story
from .stream import Chunk, Stream, check_chunks


def psnr(a: np.ndarray, b: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of two uint8 videos, in dB; None when they are equal."""
    error = float(np.square(a.astype(np.float32) - b.astype(np.float32)).mean())
    return None if error == 0 else decibels(error, 255)


def decibels(error: float, peak: float) -> float:
    """The peak signal-to-noise ratio that a mean squared error amounts to, for a signal of range `peak`, in dB."""
    return 10 * math.log10(peak**2 / error)


def interleave(
    streams: Sequence[Stream], chunks: int, before: Callable[[int], object] = lambda index: None
) -> Iterator[tuple[int, Chunk]]:
    """Step every stream `chunks` times in turn; who goes first alternates. Yields which stream, and its chunk.

    `before` is called with the index of each chunk before any stream generates it.
    """
    for index in range(chunks):
        before(index)
        turn = range(len(streams)) if index % 2 == 0 else reversed(range(len(streams)))
        for which in turn:
            yield which, streams[which].step()


def evenly_spaced(chunks: int, most: int = 8) -> tuple[int, ...]:
    """Up to `most` chunk numbers, counted from 1, from the first to the last."""
    return tuple(np.unique(np.linspace(1, chunks, min(chunks, most)).round().astype(int)).tolist())


def speed_ratios(reference: Sequence[Chunk], chunks: Sequence[Chunk]) -> list[float]:
    """Seconds of the reference / seconds of the other stream, per chunk, without text and decoding.

    A stream that was stopped early is compared over the chunks that both have.
    """
    pairs = zip(reference, chunks, strict=False)
    return [other.timings.generate / chunk.timings.generate for other, chunk in pairs]


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
    shared: bool = False,
) -> dict[str, Any]:
    """Run policies interleaved on the same noise and compare each with `full`, which joins when it is not listed.

    Args:
        model: The video model.
        policies: What to compare.
        prompt: The prompt of all streams.
        seed: Of the noise of all streams.
        chunks: Chunks per stream.
        roles: Head roles; by default those of the model.
        warmup: Chunks of a separate run before, which are not measured.
        seen: Called with every measured chunk and the label of its policy.
        story: Applied to all streams.
        say: Called with a sentence where a stream follows only a part of the story.
        shared: Compute once what policies have in common: the same frames sooner, and no speeds.

    Returns:
        The report. Per policy `ratio_denoise` is full / policy in seconds of denoising, context pass and rebuilds,
        `ratio_kv_bytes` full / policy at the last chunk, `psnr_vs_full` in dB, None where the frames are equal or
        nothing is decoded.

    Raises:
        ValueError: A parameter is out of range, or a policy does not fit the model or cannot follow the story.
    """
    check_chunks(chunks)
    policies = list(policies) if any(isinstance(policy, Full) for policy in policies) else [Full(), *policies]
    labels = labels_of(policies)
    made: list[list[Chunk]] = [[] for _ in policies]

    def streams() -> dict[str, Stream]:
        return {
            label: Stream(model, policy, prompt, seed, roles) for label, policy in zip(labels, policies, strict=True)
        }

    def in_turns() -> Iterator[tuple[int, Chunk]]:
        for _ in interleave(list(streams().values()), warmup):
            pass
        measured = streams()

        def before(index: int) -> None:
            for sentence in story.apply(index, measured):
                say(f"chunk {index + 1}: {sentence}")

        yield from interleave(list(measured.values()), chunks, before)

    paths = paths_of(model, policies, prompt, seed, chunks, roles, story) if shared else []
    for which, chunk in generate(model, paths, say) if shared else in_turns():
        made[which].append(chunk)
        seen(labels[which], chunk)
    reference = made[next(i for i, policy in enumerate(policies) if isinstance(policy, Full))]
    results = {}
    for label, own in zip(labels, made, strict=True):
        record = stream_record(own, model, seed, model.device) | {
            "policy": label,
            "ratio_kv_bytes": reference[-1].kv_bytes / own[-1].kv_bytes,
            "psnr_vs_full": [_psnr_of(full, chunk) for full, chunk in zip(reference, own, strict=True)],
        }
        if shared:
            results[label] = without_speeds(record)
        else:
            ratios = speed_ratios(reference, own)
            results[label] = record | {"ratio_denoise": {"per_chunk": ratios, "median": statistics.median(ratios)}}
    return {
        "model": model.name,
        "prompt": prompt,
        "seed": seed,
        "chunks": chunks,
        **({"story": write_story(story)} if story.cues else {}),
        "reference": "full",
        **(counts(paths) if shared else {"fps_meaning": FPS_MEANING}),
        "policies": results,
    }


def _psnr_of(reference: Chunk, chunk: Chunk) -> float | None:
    if reference.video is None or chunk.video is None:
        return None
    return psnr(reference.video, chunk.video)


def labels_of(policies: Sequence[Policy]) -> list[str]:
    """A label for each policy: its name, its full text where two share a name, numbered where one is listed twice."""
    plain = [policy.name for policy in policies]
    names = [policy.name if plain.count(policy.name) == 1 else write(policy) for policy in policies]
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]
