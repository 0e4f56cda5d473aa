"""The passes of a chunk, and what the policy decides about each: where the chunk lies, what is read, what stays."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from fkv.cache import KVCache
from fkv.pages import Reads
from fkv.policies import ChunkState, evict
from fkv.probe import FrameMassProbe, PassMass
from fkv.sampler import renoise, x0_of
from fkv.transformer.coordinates import with_first_pixels
from fkv.transformer.passes import Pass
from fkv.transformer.probes import Probes
from fkv.unipc import UniPC

from .state import StreamState

POSITION_LIMIT = (
    1024  # latent frames between a cached frame and the newest chunk; beyond it the cached frame moves along
)


def begin(state: StreamState) -> Tensor:
    """Reserve pages for the next chunk in every cache. Returns its RoPE."""
    frames = state.frames(state.index)
    positions = state.policy.chunk_positions(state.seen(state.caches[0]))
    if positions is None:
        _follow(state, frames)
        positions = frames
    for cache in state.caches:
        cache.begin(frames, positions, state.apart)
    return state.rope(positions)


def _follow(state: StreamState, frames: tuple[int, ...]) -> None:
    """Move cached frames forward in time that are too far behind, so that a stream has no end."""
    for cache in state.caches:
        cached = cache.frames()
        far = [f for f, at in zip(cached, cache.positions_of(cached), strict=True) if frames[-1] - at >= POSITION_LIMIT]
        if far:
            cache.reposition(far, POSITION_LIMIT // 2)


def denoise(
    state: StreamState, rope: Tensor, probes: Probes, reads: dict[str, dict[str, Reads]], keep_steps: bool
) -> Generator[Pass, Any, tuple[Tensor, tuple[Tensor, ...]]]:
    """Denoise the next chunk.

    Args:
        state: Of the stream.
        rope: Of the chunk.
        probes: See the passes.
        reads: Filled with what each pass read, see `Reading.chosen`.
        keep_steps: Whether the clean latents are returned that each step predicted.

    Yields:
        Each pass, to be sent its flow.

    Returns:
        The clean latents of the chunk, and those that each step predicted.
    """
    frames = state.frames(state.index)
    schedule = state.schedule(state.index)
    solver = UniPC(schedule.sigmas) if schedule.solver == "unipc" else None
    shape = (state.geometry.batch, len(frames), *state.model.latent)
    device = state.model.device
    x = start = state.noise.initial(state.index, shape).to(device)
    steps = []
    for step, sigma in enumerate(schedule.sigmas):
        cache = state.caches[step if len(state.caches) > 1 else 0]
        set_reads(state, cache, f"step {step}")
        watching = probes.begin(state.index, frames, f"step {step}")
        flow = yield Pass(x, schedule.timesteps[step], state.text, cache, rope, watching)
        reads[f"step {step}"] = dict(cache.reading.chosen)
        x0 = x0_of(x, flow, sigma)
        if keep_steps:
            steps.append(x0)
        if step + 1 == len(schedule.sigmas):
            break
        if solver:
            x = solver.step(x, x0)
        else:
            x = renoise(x0, state.noise.between(state.index, step, shape).to(device), schedule.sigmas[step + 1])
            if state.model.transformer.events:
                x = with_first_pixels(x, start, len(frames))
    return x0, tuple(steps)


def set_reads(state: StreamState, cache: KVCache, step: str, chunk: int | None = None) -> None:
    """Let the policy choose what the next pass reads."""
    seen = state.seen(cache, step, chunk)
    cache.reading.choose({name: state.policy.reads(name, seen) for name in cache.groups})
    cache.select = partial(_select, state, seen) if state.policy.selects(step, seen) else None


def _select(state: StreamState, seen: ChunkState, layer: int, query: Tensor) -> None:
    """Let the policy look at the queries of a layer, and ask again what the layer reads."""
    state.policy.select(seen, layer, query)
    groups = [group.name for group, _ in seen.cache.slices[layer]]
    seen.cache.reading.choose({name: state.policy.reads(name, seen) for name in groups})


def rewrite(state: StreamState, cache: KVCache) -> None:
    """Compute an earlier chunk anew where the policy asks for it and the whole chunk is cached."""
    chunk = state.policy.rewrites(state.seen(cache))
    frames = () if chunk is None else state.frames(chunk)
    if chunk is None or not set(frames) <= set(cache.frames()):
        return
    cache.aim(frames)
    set_reads(state, cache, "rewrite", chunk)
    latents = state.context_latents(chunk, state.latents[chunk])
    state.rebuild(latents, cache, state.rope(cache.positions_of(frames)))
    cache.aim(state.frames(state.index))


def policy_probe(state: StreamState) -> FrameMassProbe | None:
    """A probe of the pass that the policy wants to see. Raises ValueError when chunks have no such pass."""
    wanted = state.policy.wants_attention(state.index, state.caches[0])
    if wanted is None:
        return None
    if wanted not in state.pass_names:
        raise ValueError(
            f"policy {state.policy.name!r} wants to see pass {wanted!r}; "
            f"a chunk of this model has {', '.join(state.pass_names)}"
        )
    return FrameMassProbe(passes={wanted})


def evicted(state: StreamState, cache: KVCache, mass: PassMass | None) -> KVCache:
    """A cache after the eviction at the end of the chunk, with what the policy's probe has seen."""
    seen = state.seen(cache)
    if mass is not None:
        seen = replace(seen, mass=mass.mass, key_frames=mass.key_frames)
    return evict(state.policy, seen)
