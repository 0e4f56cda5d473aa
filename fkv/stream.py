"""One live generation: `Stream.step()` makes the next chunk and says everything there is to say about it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkv.models.base import VideoModel
from fkv.transformer.causal import NO_PROBES, Probe, Probes

from .cache import Heads, KVCache, Pages
from .kernels import rope_freqs_cis
from .policies import ChunkState, Policy
from .probe import FrameMassProbe, PassMass
from .roles import HeadRoles
from .sampler import Noise, SeededNoise, renoise, x0_of

MAX_PROMPT = 4000
MAX_CHUNKS = 100_000
MAX_SEED = 2**31 - 1
POSITION_LIMIT = 1024
"""Latent frames between the sink and the newest chunk after which the sink's positions move along."""


@dataclass(frozen=True)
class Timings:
    """Seconds per stage of one chunk. `text` is above 0 only where a new prompt was encoded; `rebuild` where the cache
    was computed anew (a prompt change with re-cache, or a policy that recomputes). `decode` is what decoding adds: where it runs
    beside the next chunk (`fkv.parallel.overlap`), the time for which it was waited for."""

    text: float = 0.0
    rebuild: float = 0.0
    denoise: float = 0.0
    context: float = 0.0
    decode: float = 0.0

    @property
    def generate(self) -> float:
        """Seconds of everything but decoding and text."""
        return self.rebuild + self.denoise + self.context

    @property
    def total(self) -> float:
        return self.text + self.generate + self.decode


@dataclass(frozen=True)
class Chunk:
    """One generated chunk and what it cost. Every panel, report and benchmark reads this record.

    frames : its latent frames, absolute. video : uint8 [T, H, W, 3], or None without a decoder. latents : [B, 3, C, h, w].
    kv_bytes : held while the chunk attends, its own pages included. kv_tokens : key length per head group.
    context_frames : latent frames of which some page was attended, the chunk's own included.
    pages : group -> the page table while the chunk attended. kept : group -> mask over those pages, what survived it.
    kinds : group -> what each of those pages was for, keys of `fkv.policies.kinds.KINDS`. heads : group -> its heads per layer.
    """

    index: int
    frames: tuple[int, ...]
    prompt: str
    policy: str
    latents: Tensor
    video: np.ndarray | None
    timings: Timings
    kv_bytes: int
    kv_tokens: dict[str, int]
    context_frames: int
    segments: int
    pages: dict[str, Pages]
    kept: dict[str, np.ndarray]
    events: tuple[str, ...] = ()
    x0_steps: tuple[Tensor, ...] = ()
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heads: dict[str, Heads] = field(default_factory=dict)

    @property
    def video_frames(self) -> int:
        return 0 if self.video is None else len(self.video)


@dataclass
class _Timer:
    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.current_stream(
                self.device
            ).synchronize()  # not the device, where a decoder may be at work beside
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began


class Stream:
    """A live generation.

    Parameters
    ----------
    model : what generates. policy : which pages of the cache survive a chunk. prompt : text, 1 to `MAX_PROMPT` characters.
    seed : chooses the noise, 0 to `MAX_SEED`; the same seed gives every policy the same noise.
    roles : head roles for policies that need them; default the model's own.
    noise, text : instead of seed and prompt, for tests against recorded runs.

    Changes (`set_prompt`, `set_policy`, `set_roles`) are applied when the next chunk begins.
    Raises ValueError with a sentence for the user when a parameter is out of range.
    """

    def __init__(
        self,
        model: VideoModel,
        policy: Policy,
        prompt: str = "",
        seed: int = 0,
        roles: HeadRoles | None = None,
        noise: Noise | None = None,
        text: Tensor | None = None,
        decode: bool = True,
        keep_steps: bool = False,
    ) -> None:
        self.model, self.policy, self.roles = model, policy, roles or model.roles
        self._asked = self.policy, self.roles
        self.noise = noise or SeededNoise(check_seed(seed))
        self.decode, self.keep_steps = decode and model.decoder is not None, keep_steps
        transformer, (_, height, width) = model.transformer, model.latent
        self.geometry = transformer.geometry(height, width, model.frames_per_chunk, 1 if text is None else len(text))
        steps = len(model.schedule.sigmas)
        self.caches = [self._new_cache() for _ in range(steps if policy.caches == "per-step" else 1)]
        self.index = 0
        self.prompt = ""
        self._decoder_state: Any = None
        self._latents: dict[int, Tensor] = {}
        self._position: dict[int, int] = {}
        self._changes: list[Callable[[_Timer], str | None]] = []
        if text is None:
            self.set_prompt(prompt)
        else:
            self._text = transformer.prepare_text(text)

    # Changes, applied between chunks.

    def set_prompt(self, prompt: str, recache: bool = False, cut: bool = False) -> None:
        """Continue with another prompt.

        Args:
            prompt: Text of 1 to `MAX_PROMPT` characters.
            recache: First recompute the cached frames under the prompt, as LongLive does (arXiv 2509.22622).
            cut: Call the change a cut in the chunk's events. The cache does not depend on it.

        Raises:
            ValueError: The prompt is not usable, or the policy has no shared cache to recompute.
        """
        prompt = check_prompt(prompt)
        if recache and self.policy.caches != "shared":
            raise ValueError(f"policy {self.policy.name!r} has no shared cache to recompute")

        def apply(timer: _Timer) -> str | None:
            first = not self.prompt
            with timer.stage("text"):
                self._text = self.model.transformer.prepare_text(self.model.encode(prompt))
            self.prompt = prompt
            if recache and not first:
                with timer.stage("rebuild"):
                    self.caches = [self._recache()]
            return None if first else f"{'cut' if cut else 'prompt'}: {prompt}"

        self._changes.append(apply)

    def set_policy(self, policy: Policy, roles: HeadRoles | None = None) -> None:
        """Go on under another policy or other head roles.

        What the new policy would drop is dropped at once; what an earlier one dropped stays gone.
        Raises ValueError when the policy needs roles and there are none, or they are for another model.
        """
        roles = roles or self._asked[1]
        KVCache(self.geometry, policy.groups(self.geometry, roles) or self.geometry.every_head, policy.segments)
        if policy.caches != self.policy.caches:
            raise ValueError(
                f"a running stream cannot change between {self.policy.name!r} and {policy.name!r}: they store different things; start anew"
            )

        self._asked = policy, roles

        def apply(timer: _Timer) -> str:
            before, self.policy, self.roles = (self.policy, self.roles), policy, roles
            for i, cache in enumerate(self.caches):
                groups = policy.groups(self.geometry, roles) or {
                    name: group.heads for name, group in cache.groups.items()
                }
                cache = cache.regrouped(groups, policy.segments, policy.stored(self.model.transformer.dtype))
                if self.index:
                    cache = self._commit(cache, self.index - 1)
                self.caches[i] = cache.regrouped(groups, policy.segments)
            only_roles = policy == before[0] and roles is not None and before[1] is not None
            return f"roles: {roles.changes(before[1])}" if only_roles else f"policy: {policy.name}"

        self._changes.append(apply)

    @property
    def coming(self) -> Policy:
        """The policy under which the next chunk is made."""
        return self._asked[0]

    def set_roles(self, roles: HeadRoles) -> None:
        """Go on with other head roles under the same policy."""
        self.set_policy(self._asked[0], roles)

    # Generation.

    def step(self, probe: Probe | None = None) -> Chunk:
        """Generate the next chunk. `probe` sees the attention of every pass."""
        device = self.model.device
        with (
            torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        ):  # Triton and CUDA graphs take the current one
            return self._step(probe, _Timer(device))

    @torch.inference_mode()
    def _step(self, probe: Probe | None, timer: _Timer) -> Chunk:
        events = [event for change in self._changes if (event := change(timer))]
        self._changes.clear()
        if self.policy.caches == "none":
            with timer.stage("rebuild"):
                self.caches = [self._replay(self._held_chunks())]
        for cache in self.caches:
            self.model.transformer.weights_for(cache.order)
        frames = self._frames(self.index)
        watched = self.policy.wants_attention(self.index, self.caches[0])
        passes = [f"step {step}" for step in range(len(self.model.schedule.sigmas))] + ["context"]
        if watched and watched not in passes:
            raise ValueError(
                f"policy {self.policy.name!r} wants to see pass {watched!r}; a chunk of this model has {', '.join(passes)}"
            )
        watcher = FrameMassProbe(passes={watched}) if watched else None
        probes = Probes(p for p in (probe, watcher) if p is not None)
        with timer.stage("denoise"):
            self._follow(frames)
            table = self._table(frames)
            x0, steps = self._denoise(frames, table, probes)
        with timer.stage("context"):
            if self.policy.caches != "per-step":
                self._pass(x0, 0.0, self.caches[0], table, probes.begin(self.index, frames, "context"))
            cache = self.caches[0]
            pages = {name: group.pages for name, group in cache.groups.items()}
            heads = {name: group.heads for name, group in cache.groups.items()}
            kinds = self._kinds(ChunkState(self.index, frames, cache), pages)
            bytes_held, tokens, context = sum(c.bytes() for c in self.caches), cache.tokens(), len(cache.frames())
            seen = watcher.take()[0] if watcher else None
            self.caches = [self._commit(cache, self.index, seen) for cache in self.caches]
            kept = {name: self._survived(name, table) for name, table in pages.items()}
        video = None
        if self.decode:
            with timer.stage("decode"):
                video, self._decoder_state = self.model.decoder(x0[:1], self._decoder_state)
        self._remember(x0)
        self.index += 1
        return Chunk(
            self.index - 1,
            frames,
            self.prompt,
            self.policy.name,
            x0,
            video,
            Timings(**timer.seconds),
            bytes_held,
            tokens,
            context,
            cache.segments,
            pages,
            kept,
            tuple(events),
            steps,
            kinds,
            heads,
        )

    def _denoise(self, frames: tuple[int, ...], table: Tensor, probes: Probes) -> tuple[Tensor, tuple[Tensor, ...]]:
        sigmas, shape = self.model.schedule.sigmas, (self.geometry.batch, len(frames), *self.model.latent)
        device = self.model.device
        x = self.noise.initial(self.index, shape).to(device)
        for cache in self.caches:
            cache.begin(frames)
        steps = []
        for step, sigma in enumerate(sigmas):
            cache, seeing = (
                self.caches[step if len(self.caches) > 1 else 0],
                probes.begin(self.index, frames, f"step {step}"),
            )
            x0 = x0_of(x, self._pass(x, 1000 * sigma, cache, table, seeing), sigma)
            if self.keep_steps:
                steps.append(x0)
            if step + 1 < len(sigmas):
                x = renoise(x0, self.noise.between(self.index, step, shape).to(device), sigmas[step + 1])
        return x0, tuple(steps)

    def _pass(
        self, latents: Tensor, timestep: float, cache: KVCache, table: Tensor, probes: Probes = NO_PROBES
    ) -> Tensor:
        return self.model.transformer(latents, timestep, self._text, cache, table, probes)

    def _replay(self, chunks: Iterable[int]) -> KVCache:
        """A fresh cache that holds these earlier chunks, each computed anew under the current prompt."""
        cache = self._new_cache()
        for chunk in chunks:
            frames = self._frames(chunk)
            cache.begin(frames)
            self._pass(self._latents[chunk], 0.0, cache, self._table(frames))
            cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
        return cache

    def _recache(self) -> KVCache:
        """The held pages with keys and values recomputed under the current prompt (LongLive's KV re-cache)."""
        old = self.caches[0]
        new = self._replay(self._held_chunks())
        new = new.regrouped({name: group.heads for name, group in old.groups.items()}, old.segments)
        held = {name: set(zip(group.pages.frame, group.pages.segment)) for name, group in old.groups.items()}
        new.evict(
            {
                n: np.array([p in held[n] for p in zip(g.pages.frame, g.pages.segment)], bool)
                for n, g in new.groups.items()
            }
        )
        return new.regrouped({name: group.heads for name, group in new.groups.items()}, new.segments)

    def _remember(self, x0: Tensor) -> None:
        """Keep latents only while a frame of theirs is held."""
        self._latents[self.index] = x0
        held = self._held_chunks()
        self._latents = {chunk: latents for chunk, latents in self._latents.items() if chunk in held}

    def _held_chunks(self) -> list[int]:
        """Earlier chunks of which the cache holds a frame."""
        return sorted({frame // self.geometry.frames_per_chunk for frame in self.caches[0].frames()})

    def _follow(self, frames: tuple[int, ...]) -> None:
        """Move the positions of held frames that lie too far back, so that a stream of any length stays in range."""
        for cache in self.caches:
            far = [f for f in cache.frames() if frames[-1] - self._position.get(f, f) >= POSITION_LIMIT]
            if far:
                step = POSITION_LIMIT // 2
                turn = rope_freqs_cis([step], 1, 1, self.geometry.head_dim, self.model.device)[0]
                cache.rotate(far, turn)
                self._position |= {f: self._position.get(f, f) + step for f in far}

    def _frames(self, chunk: int) -> tuple[int, ...]:
        count = self.geometry.frames_per_chunk
        return tuple(range(chunk * count, (chunk + 1) * count))

    def _table(self, frames: tuple[int, ...]) -> Tensor:
        positions = [self._position.get(frame, frame) for frame in frames]
        return self.model.transformer.rope(positions, self.geometry.rows, self.geometry.cols)

    def _commit(self, cache: KVCache, index: int, seen: PassMass | None = None) -> KVCache:
        """Let the policy drop what it drops at the end of a chunk; reassign heads first where it asks for that."""
        attention = (seen.mass, seen.key_frames) if seen else ()
        state = ChunkState(index, self._frames(index), cache, *attention)
        groups = self.policy.reassign_heads(state)
        if groups is None:
            self.policy.commit(state)
            return cache
        cache = cache.regrouped(groups, cache.segments)
        self.policy.commit(replace(state, cache=cache))
        return cache.regrouped(groups, cache.segments)

    def _kinds(self, state: ChunkState, pages: dict[str, Pages]) -> dict[str, tuple[str, ...]]:
        """What the policy says that each page is for, per group."""
        return {
            name: tuple(
                self.policy.page_kind(name, frame, segment, state)
                for frame, segment in zip(table.frame.tolist(), table.segment.tolist(), strict=True)
            )
            for name, table in pages.items()
        }

    def _survived(self, name: str, table: Pages) -> np.ndarray:
        """Which pages of a group's earlier table are still held (by any group, where groups have changed since)."""
        groups = self.caches[0].groups
        held = {
            p
            for g in ([groups[name]] if name in groups else groups.values())
            for p in zip(g.pages.frame, g.pages.segment)
        }
        return np.array([page in held for page in zip(table.frame, table.segment)], bool)

    def _new_cache(self) -> KVCache:
        groups = self.policy.groups(self.geometry, self.roles) or self.geometry.every_head
        transformer = self.model.transformer
        return KVCache(
            self.geometry, groups, self.policy.segments, self.policy.stored(transformer.dtype), transformer.device
        )


def check_prompt(prompt: str) -> str:
    """The prompt without surrounding space. Raises ValueError when it is empty, too long, or no text."""
    if not isinstance(prompt, str) or any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in prompt):
        raise ValueError("the prompt must be a text without control characters; describe what the video should show")
    prompt = prompt.strip()
    if not prompt:
        raise ValueError("the prompt is empty; describe what the video should show")
    if len(prompt) > MAX_PROMPT:
        raise ValueError(f"the prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are read")
    return prompt


def check_seed(seed: int) -> int:
    """Raises ValueError unless the seed is a whole number from 0 to `MAX_SEED`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"the seed must be a whole number from 0 to {MAX_SEED:,}, not {seed!r}")
    return seed


def check_chunks(chunks: int) -> int:
    """Raises ValueError unless the number of chunks is a whole number from 1 to `MAX_CHUNKS`."""
    if isinstance(chunks, bool) or not isinstance(chunks, int) or not 1 <= chunks <= MAX_CHUNKS:
        raise ValueError(f"the number of chunks must be a whole number from 1 to {MAX_CHUNKS:,}, not {chunks!r}")
    return chunks
