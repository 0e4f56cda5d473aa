"""Streams brought to a context length without generating it, then measured in turns."""

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
from fkv.models.memory import cache_bytes
from fkv.parallel.overlap import Overlap
from fkv.policies import ChunkState, Policy, evict, keeper
from fkv.policies.full import Full
from fkv.stream import Chunk, Snapshot, Stream
from fkv.world import PROMPT

from .models import TooLarge, require_memory
from .work import Ceilings, bare_calls, pass_work, seconds

CAPTURE_CHUNKS = 2  # after so many chunks kernels are chosen and every pass is captured as a CUDA graph
STAGES = ("rebuild", "denoise", "context", "decode", "generate", "total")


@torch.inference_mode()
def fill_cache(cache: KVCache, policy: Policy, chunks: int) -> None:
    """Pass chunks of random keys and values, in the shapes of real ones, through a cache under a policy.

    Args:
        cache: The cache, empty.
        policy: Decides which pages stay.
        chunks: How many chunks.
    """
    geometry = cache.geometry
    tokens = geometry.frames_per_chunk * geometry.tokens_per_frame
    pair = torch.randn(2, geometry.batch, tokens, geometry.heads, geometry.head_dim)
    keys, values = pair.to(cache.device, cache.dtype).unbind(0)
    for chunk in range(chunks):
        frames = tuple(range(chunk * geometry.frames_per_chunk, (chunk + 1) * geometry.frames_per_chunk))
        state = ChunkState(chunk, frames, cache)
        apart = policy.apart(geometry)
        cache.begin(frames, apart=apart)
        for layer in range(geometry.layers):
            cache.write(layer, keys, values)
            if apart:
                cache.settle(layer, keeper(policy, state))
        evict(policy, state)


def prepare(model: VideoModel, policy: Policy, context: int, decode: bool = True) -> Stream:
    """Return a stream whose next chunk attends to a context length under `full`.

    Earlier chunks are filled in, or generated where a policy recomputes them or looks at their attention.

    Args:
        model: What generates.
        policy: Of the stream.
        context: Latent frames that the next chunk attends to under `full`, its own included.
        decode: Whether the stream decodes.
    """
    stream = Stream(model, policy, PROMPT, decode=decode)
    chunks = context // model.frames_per_chunk - 1
    if policy.caches == "none" or policy.watches_attention:
        for _ in range(chunks):
            stream.step()
    else:
        for cache in stream.caches:
            fill_cache(cache, policy, chunks)
        latents = torch.randn(1, model.frames_per_chunk, *model.latent, device=model.device)
        stream.restore(replace(stream.snapshot(), index=chunks, latents=dict.fromkeys(range(chunks), latents)))
    return stream


def _peak(model: VideoModel, policy: Policy, context: int, overlap: bool) -> int:
    """Return the bytes while one chunk is generated beside nothing else: CUDA's peak, on a CPU the resident size."""
    device = model.device
    gc.collect()
    stream = prepare(model, policy, context, decode=not overlap)
    decoder = Overlap(model) if overlap else None
    if device.type != "cuda":
        stream.step()
        return psutil.Process().memory_info().rss
    snapshot = stream.snapshot()
    for _ in range(CAPTURE_CHUNKS):
        _step(stream, snapshot, decoder)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    _step(stream, snapshot, decoder)
    return torch.cuda.max_memory_allocated(device)


def _passes(stream: Stream) -> int:
    """Return the passes per chunk: the denoising steps, and the context pass where there is one."""
    return len(stream.model.schedule.sigmas) + (stream.policy.caches != "per-step")


def _step(stream: Stream, snapshot: Snapshot, decoder: Overlap | None) -> Chunk:
    """Generate the chunk after a snapshot.

    With a decoder, the chunk is generated while an equal one is decoded, and then waits for that, as in a long stream.
    """

    def once() -> Chunk:
        stream.restore(snapshot)
        stream.model.transformer.weights_for(stream.caches[0].order)
        return stream.step()

    if decoder is None:
        return once()
    before, chunk = decoder(once() for _ in range(2))
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
    """Measure policies at one context length, interleaved.

    Every round generates the same chunk once per policy (the order alternates) and measures the bare calls of its
    passes and the machine's ceilings between them. A policy that does not fit in memory, alone or beside those before
    it, gets a row with an error.

    Args:
        model: What generates.
        policies: What to measure.
        context: As in `prepare`.
        repeats: Rounds that count.
        warmup: Rounds before them that do not.
        ceilings: Measures the machine's ceilings once.
        overlap: Decode beside the next chunk.
        progress: Called after every chunk.

    Returns:
        One row per policy, and the best ceilings measured meanwhile.
    """
    device = model.device
    labelled = dict(zip(labels_of(policies), policies, strict=True))
    rows: dict[str, dict[str, Any]] = {}
    peaks: dict[str, int] = {}
    geometry = Stream(model, Full(), PROMPT).geometry
    chunks = context // model.frames_per_chunk
    steps = len(model.schedule.sigmas)
    cached_bytes = 0
    for label, policy in labelled.items():
        apart = not model.transformer.captures
        counted = cache_bytes(geometry, policy, model.roles, chunks, model.transformer.dtype, steps, apart)
        policy_bytes = counted.kv_bytes_allocated
        try:
            require_memory(cached_bytes + policy_bytes, device, label)
            peaks[label] = _peak(model, policy, context, overlap)
            cached_bytes += policy_bytes
        except (torch.OutOfMemoryError, TooLarge):
            others = " beside the others" if cached_bytes else ""
            rows[label] = {"policy": label, "context": context, "error": f"does not fit in memory{others}"}
    streams = {label: prepare(model, labelled[label], context, not overlap) for label in peaks}
    decoders = {label: Overlap(model) if overlap else None for label in streams}
    snapshots = {label: stream.snapshot() for label, stream in streams.items()}
    generated: dict[str, list[Chunk]] = {label: [] for label in streams}
    bare: dict[str, list[float]] = {label: [] for label in streams}
    text = model.transformer.prepare_text(model.encode(PROMPT))
    best = Ceilings(0.0, 0.0)
    tokens = model.frames_per_chunk * geometry.tokens_per_frame
    for turn in range(warmup + repeats):
        best = best.or_better(ceilings())
        for label in list(streams) if turn % 2 == 0 else reversed(list(streams)):
            stream = streams[label]
            chunk = _step(stream, snapshots[label], decoders[label])
            read = chunk.kv_tokens_read
            alone = partial(bare_calls, model.transformer, stream.caches[0], read, tokens, text, passes=_passes(stream))
            took = seconds(alone, device)
            if turn >= warmup:
                generated[label].append(chunk)
                bare[label].append(took)
            progress()
    reference = next((generated[label] for label in streams if type(labelled[label]) is Full), None)
    for label, stream in streams.items():
        rows[label] = _row(label, context, stream, generated[label], bare[label], reference, best, peaks[label])
    return [rows[label] for label in labelled], best


def _row(
    label: str,
    context: int,
    stream: Stream,
    chunks: list[Chunk],
    bare: list[float],
    reference: list[Chunk] | None,
    best: Ceilings,
    peak: int,
) -> dict[str, Any]:
    """Make the row of one policy, as `MEANINGS` in `report` explains it."""
    model = stream.model
    chunk = chunks[-1]
    times = {stage: [getattr(each.timings, stage) for each in chunks] for stage in STAGES}
    median = {stage: statistics.median(values) for stage, values in times.items()}
    frames = model.frames_per_chunk * model.video_frames_per_latent
    row: dict[str, Any] = {
        "policy": label,
        "context": context,
        "context_frames": chunk.context_frames,
        "fps_denoise": frames / median["generate"],
        "fps_end_to_end": frames / median["total"] if model.decoder else None,
        "seconds": {
            stage: {"median": median[stage], "min": min(values), "max": max(values)} for stage, values in times.items()
        },
        "kv_bytes": chunk.kv_bytes,
        "kv_bytes_between": chunk.kv_bytes_between,
        "kv_bytes_allocated": chunk.kv_bytes_allocated,
        "kv_tokens": chunk.kv_tokens,
        "kv_tokens_read": chunk.kv_tokens_read,
        "peak_bytes": peak,
    }
    if reference:
        rounds = zip(reference, chunks, strict=True)
        row["speed_vs_full"] = statistics.median(full.timings.generate / own.timings.generate for full, own in rounds)
        row["kv_bytes_vs_full"] = chunk.kv_bytes / reference[-1].kv_bytes
    if stream.policy.caches != "none":
        cache = stream.caches[0]
        tokens = model.frames_per_chunk * stream.geometry.tokens_per_frame
        heads = {name: group.heads for name, group in cache.groups.items()}
        text_tokens = model.encode(PROMPT).shape[1]
        work = pass_work(model.transformer, heads, chunk.kv_tokens_read, tokens, text_tokens, cache.dtype.itemsize)
        work = work.times(_passes(stream))
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
            "over_bare": statistics.median(g / b for g, b in zip(times["generate"], bare, strict=True)),
        }
    return row
