"""Streams brought to a context length without generating it, then measured in turn."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import torch

from fkv.cache import KVCache
from fkv.comparison import labels_of
from fkv.models.base import VideoModel
from fkv.models.memory import kv_bytes
from fkv.parallel.overlap import Overlap
from fkv.policies import ChunkState, Policy, evict
from fkv.policies.full import Full
from fkv.stream import Chunk, Snapshot, Stream

from .models import TooLarge, require_memory
from .work import Ceilings, bare_calls, pass_work, seconds

PROMPT = "a red ball bouncing over the hills at sunset"
RECORDED = 2
"""Chunks after which kernels are chosen and every pass has been recorded as a CUDA graph."""
STAGES = ("rebuild", "denoise", "context", "decode", "generate", "total")


@torch.inference_mode()
def fill_cache(cache: KVCache, policy: Policy, chunks: int) -> None:
    """Pass `chunks` chunks of random keys and values through a cache under a policy: the shapes of real ones."""
    geometry = cache.geometry
    tokens = geometry.frames_per_chunk * geometry.tokens_per_frame
    keys, values = (
        torch.randn(2, geometry.batch, tokens, geometry.heads, geometry.head_dim)
        .to(cache.device, cache.dtype)
        .unbind(0)
    )
    for chunk in range(chunks):
        frames = tuple(range(chunk * geometry.frames_per_chunk, (chunk + 1) * geometry.frames_per_chunk))
        cache.begin(frames)
        for layer in range(geometry.layers):
            cache.write(layer, keys, values)
        evict(policy, ChunkState(chunk, frames, cache))


def prepare(model: VideoModel, policy: Policy, context: int, decode: bool = True) -> Stream:
    """A stream whose next chunk attends, under `full`, to `context` latent frames, its own included.

    Earlier chunks are filled in, or generated where a policy recomputes them or looks at their attention.
    """
    stream, chunks = Stream(model, policy, PROMPT, decode=decode), context // model.frames_per_chunk - 1
    if policy.caches == "none" or policy.watches_attention:
        for _ in range(chunks):
            stream.step()
    else:
        for cache in stream.caches:
            fill_cache(cache, policy, chunks)
        stream.restore(replace(stream.snapshot(), index=chunks))
    return stream


def _peak(model: VideoModel, policy: Policy, context: int, overlap: bool) -> int:
    """Bytes while one chunk is generated and nothing else is held: CUDA's peak, on a CPU the process's resident size."""
    device = model.device
    gc.collect()
    stream, beside = prepare(model, policy, context, decode=not overlap), Overlap(model) if overlap else None
    if device.type != "cuda":
        stream.step()
        return psutil.Process().memory_info().rss
    place = stream.snapshot()
    for _ in range(RECORDED):
        _step(stream, place, beside)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    _step(stream, place, beside)
    return torch.cuda.max_memory_allocated(device)


def _passes(stream: Stream) -> int:
    """Passes per chunk: the denoising steps, and the context pass where there is one."""
    return len(stream.model.schedule.sigmas) + (stream.policy.caches != "per-step")


def _step(stream: Stream, place: Snapshot, beside: Overlap | None) -> Chunk:
    """The chunk of that place. beside : decodes it; what is measured then is a chunk of a long stream, generated while one like it is
    decoded, and the wait for that one."""

    def once() -> Chunk:
        stream.restore(place)
        stream.model.transformer.weights_for(stream.caches[0].order)
        return stream.step()

    if beside is None:
        return once()
    before, chunk = beside(once() for _ in range(2))
    return replace(chunk, timings=replace(chunk.timings, decode=before.timings.decode))


def measure(
    model: VideoModel,
    policies: Sequence[Policy],
    context: int,
    repeats: int,
    warmup: int,
    ceilings: Callable[[], Ceilings],
    overlap: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], Ceilings]:
    """One row per policy at a context length, and the best ceilings seen meanwhile.

    Every round generates the same chunk once per policy, who goes first alternates, and measures the bare calls of a
    pass and the ceilings between them; the first `warmup` rounds are thrown away. A policy that does not fit in memory, alone
    or beside those named before it, gets a row that says so. overlap : decode beside the next chunk.
    """
    device, labels, rows = model.device, labels_of(policies), {}
    peaks: dict[str, int] = {}
    geometry, held = Stream(model, Full(), PROMPT).geometry, 0
    chunks, steps = context // model.frames_per_chunk, len(model.schedule.sigmas)
    for label, policy in zip(labels, policies):
        own = kv_bytes(geometry, policy, model.roles, chunks, model.transformer.dtype, steps)
        try:
            require_memory(held + own, device, label)
            peaks[label] = _peak(model, policy, context, overlap)
            held += own
        except (torch.OutOfMemoryError, TooLarge):
            beside = " beside the others" if held else ""
            rows[label] = {"policy": label, "context": context, "error": f"does not fit in memory{beside}"}
    streams = {
        label: prepare(model, policy, context, not overlap) for label, policy in zip(labels, policies) if label in peaks
    }
    beside = {label: Overlap(model) if overlap else None for label in streams}
    places = {label: stream.snapshot() for label, stream in streams.items()}
    made: dict[str, list[Chunk]] = {label: [] for label in streams}
    bare: dict[str, list[float]] = {label: [] for label in streams}
    text, best = model.transformer.prepare_text(model.encode(PROMPT)), Ceilings(0.0, 0.0)
    tokens = model.frames_per_chunk * geometry.tokens_per_frame
    for turn in range(warmup + repeats):
        best = best.or_better(ceilings())
        for label in list(streams) if turn % 2 == 0 else reversed(list(streams)):
            stream = streams[label]
            chunk = _step(stream, places[label], beside[label])
            alone = partial(
                bare_calls, model.transformer, stream.caches[0], chunk.kv_tokens, tokens, text, passes=_passes(stream)
            )
            took = seconds(alone, device)
            if turn >= warmup:
                made[label].append(chunk), bare[label].append(took)
            progress()
    reference = next(
        (made[label] for label, policy in zip(labels, policies) if type(policy) is Full and label in made), None
    )
    for label, stream in streams.items():
        rows[label] = _row(label, context, stream, made[label], bare[label], reference, best, peaks[label])
    return [rows[label] for label in labels], best


def _row(
    label: str,
    context: int,
    stream: Stream,
    made: list[Chunk],
    bare: list[float],
    reference: list[Chunk] | None,
    best: Ceilings,
    peak: int,
) -> dict[str, Any]:
    model, chunk = stream.model, made[-1]
    times = {stage: [getattr(each.timings, stage) for each in made] for stage in STAGES}
    median = {stage: statistics.median(values) for stage, values in times.items()}
    frames = model.frames_per_chunk * model.video_frames_per_latent
    row = {
        "policy": label,
        "context": context,
        "context_frames": chunk.context_frames,
        "fps_denoise": frames / median["generate"],
        "fps_end_to_end": frames / median["total"] if model.decoder else None,
        "seconds": {
            stage: {"median": median[stage], "min": min(values), "max": max(values)} for stage, values in times.items()
        },
        "kv_bytes": chunk.kv_bytes,
        "kv_tokens": chunk.kv_tokens,
        "peak_bytes": peak,
    }
    if reference:
        row["speed_vs_full"] = statistics.median(
            full.timings.generate / own.timings.generate for full, own in zip(reference, made)
        )
        row["kv_bytes_vs_full"] = chunk.kv_bytes / reference[-1].kv_bytes
    if stream.policy.caches != "none":
        cache, tokens = stream.caches[0], model.frames_per_chunk * stream.geometry.tokens_per_frame
        heads, words = {name: group.heads for name, group in cache.groups.items()}, model.encode(PROMPT).shape[1]
        work = pass_work(model.transformer, heads, chunk.kv_tokens, tokens, words, cache.dtype.itemsize).times(
            _passes(stream)
        )
        bound = work.roofline(best)
        row |= {
            "tflop": work.flops / 1e12,
            "gbyte": work.bytes / 1e9,
            "tflops": work.flops / 1e12 / median["generate"],
            "gbps": work.bytes / 1e9 / median["generate"],
            "roofline_s": bound,
            "fps_denoise_at_roofline": frames / bound,
            "share_of_roofline": bound / median["generate"],
            "bare_s": statistics.median(bare),
            "over_bare": statistics.median(g / b for g, b in zip(times["generate"], bare)),
        }
    return row
