"""One live generation: `Stream.step()` generates the next chunk and returns everything there is to know about it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkv.models.base import VideoModel
from fkv.transformer.causal import Pass, Probe, Probes

from .cache import KVCache
from .pages import Heads, Pages, PageTables, Reads
from .policies import ChunkState, PassReads, Policy, evict, keeper, page_kinds
from .probe import FrameMassProbe, PassMass
from .roles import HeadRoles
from .sampler import Noise, SeededNoise, renoise, x0_of

MAX_PROMPT = 4000
MAX_CHUNKS = 100_000
MAX_SEED = 2**31 - 1
POSITION_LIMIT = (
    1024  # latent frames between a cached frame and the newest chunk; beyond it the cached frame moves along
)


@dataclass(frozen=True)
class Timings:
    """Seconds per stage of one chunk; the fields are the stages.

    Args:
        text: Encoding a new prompt; 0 for all other chunks.
        rebuild: Computing the cache anew, after a prompt change with re-cache or under a policy that recomputes.
        denoise: The denoising passes.
        context: The pass that caches the clean latents, and eviction.
        decode: What decoding adds; the time spent waiting for it where it overlaps the next chunk
            (`fkv.parallel.overlap`).
    """

    text: float = 0.0
    rebuild: float = 0.0
    denoise: float = 0.0
    context: float = 0.0
    decode: float = 0.0

    @property
    def generate(self) -> float:
        """Seconds of everything but text and decoding."""
        return self.rebuild + self.denoise + self.context

    @property
    def total(self) -> float:
        return self.text + self.generate + self.decode


STAGES: tuple[str, ...] = tuple(stage.name for stage in fields(Timings))
"""The stages of a chunk in their order."""


@dataclass(frozen=True)
class Chunk:
    """One generated chunk and what it cost. Every panel, report and benchmark reads this record.

    Args:
        index: Of the chunk, from 0.
        frames: Its latent frames, counted from the start of the stream.
        prompt: Under which it was generated.
        policy: The name of its policy.
        latents: Clean latents, [batch, frames, channels, height, width].
        video: Decoded frames, uint8 [T, H, W, 3]; None without a decoder.
        timings: Seconds per stage.
        kv_bytes: Bytes of K and V that the chunk attends to, its own pages in every layer included; from page tables.
        kv_tokens: Head group -> tokens held while the chunk attends, its own included.
        context_frames: Latent frames with an attended page, those of the chunk included.
        segments: Pages per latent frame.
        pages: Head group -> its page table while the chunk attended.
        kept: Head group -> which of those pages stayed after the chunk, bool [pages].
        events: Changes that came into force with this chunk, as `kind: text`.
        x0_steps: With `keep_steps`, the clean latents that each denoising step predicted.
        kinds: Head group -> what each of its pages is for in the last denoising pass, keys of
            `fkv.policies.kinds.KINDS`.
        heads: Head group -> its heads per layer.
        read: Head group -> the pages that the last denoising pass read, at the positions where it read them.
        steps: Its denoising steps.
        kv_tokens_read: Head group -> key length of the last denoising pass; `kv_tokens` where it read all that is held.
        other_reads: Pass (`step 0`, ..., `context`) -> what it read, where that differs from the last denoising pass.
        rows: Streams that were computed together, this one among them (`fkv.parallel.rows`).
        kv_bytes_between: Bytes of K and V that stay between this chunk and the next.
        kv_bytes_allocated: Bytes of all buffers of K and V at the end of the chunk; less than `kv_bytes` where the
            chunk's own keys and values lie in one area for all layers, more where buffers have grown ahead.
        passes: Passes of the transformer: one per denoising step, the context pass, and those of cache rebuilds.
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
    read: dict[str, Pages] = field(default_factory=dict)
    steps: int = 0
    kv_tokens_read: dict[str, int] = field(default_factory=dict)
    other_reads: dict[str, PassReads] = field(default_factory=dict)
    passes: int = 0
    rows: int = 1
    kv_bytes_between: int = 0
    kv_bytes_allocated: int = 0

    @property
    def video_frames(self) -> int:
        return 0 if self.video is None else len(self.video)


@dataclass(frozen=True)
class Snapshot:
    """Where a stream stands, so that it can generate the same chunk again.

    Args:
        index: Of the next chunk.
        caches: The caches of the stream.
        tables: The page tables of each.
        contents: Copies of the buffers of each where chunks lie apart, else nothing: no page is overwritten then.
        notes: What the policy remembers in each.
        latents: Chunk -> its latents, of chunks with cached frames.
    """

    index: int
    caches: tuple[KVCache, ...]
    tables: tuple[PageTables, ...]
    contents: tuple[Sequence[Tensor], ...]
    notes: tuple[dict[str, Any], ...]
    latents: dict[int, Tensor]


@dataclass
class _Timer:
    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        if self.device.type == "cuda":
            # Not the whole device: a decoder may run beside.
            torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began


_Change = Callable[[_Timer], str | None]


@dataclass
class _Pending:
    """What waits for the next chunk: its policy and roles, other changes of the cache, and its text.

    A later policy or text replaces one that waits. They are applied in the order of these fields, whatever the order
    in which they were requested, so that the events of a chunk are enough to repeat it.
    """

    policy: Policy
    roles: HeadRoles | None
    changes: list[_Change] = field(default_factory=list)
    text: _Change | None = None

    def take(self) -> list[_Change]:
        """The changes after the policy, in order; none of them waits any longer."""
        changes = [*self.changes, *filter(None, [self.text])]
        self.changes.clear()
        self.text = None
        return changes


class Stream:
    """A live generation.

    Changes (`set_prompt`, `set_policy`, `set_roles`) come into force with the next chunk.

    Args:
        model: The video model.
        policy: Which pages of the cache stay after a chunk.
        prompt: 1 to `MAX_PROMPT` characters.
        seed: Chooses the noise, 0 to `MAX_SEED`; equal for all policies.
        roles: Head roles for policies that need them; by default those of the model.
        noise: In place of `seed`, to repeat a recorded run.
        text: In place of `prompt`, embeddings of [batch, tokens, text_dim].
        decode: Whether chunks have a video.
        keep_steps: Whether chunks have the clean latents of each denoising step.

    Raises:
        ValueError: A parameter is out of range or the policy does not fit the model.
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
        self.model = model
        self._loaded = model
        self.noise = noise or SeededNoise(check_seed(seed))
        self._decoder = model.decoder if decode else None
        self.keep_steps = keep_steps
        _, height, width = model.latent
        batch = 1 if text is None else len(text)
        self.geometry = model.transformer.geometry(height, width, model.frames_per_chunk, batch)
        self._policy = policy
        self._roles = roles or model.roles
        self._pending = _Pending(self._policy, self._roles)
        self._caches = self._new_caches()
        self._index = 0
        self._rebuild_passes = 0
        self._prompt = ""
        self._opening = check_prompt(prompt) if text is None else ""
        self._decoder_state: Any = None
        self._latents: dict[int, Tensor] = {}
        self._marks: frozenset[str] = frozenset()
        if text is None:
            self.set_prompt(self._opening)
        else:
            self._text = model.transformer.prepare_text(text)

    @property
    def index(self) -> int:
        """Index of the next chunk, from 0."""
        return self._index

    @property
    def prompt(self) -> str:
        """The prompt of the newest chunk, "" before the first."""
        return self._prompt

    @property
    def policy(self) -> Policy:
        """The policy of the newest chunk."""
        return self._policy

    @property
    def roles(self) -> HeadRoles | None:
        """The head roles of the newest chunk."""
        return self._roles

    @property
    def next_policy(self) -> Policy:
        """The policy of the next chunk."""
        return self._pending.policy

    @property
    def pass_names(self) -> list[str]:
        """The passes of the next chunk: `step 0`, `step 1`, ... and, with one cache for all steps, `context`."""
        steps = [f"step {step}" for step in range(len(self._sigmas(self.index)))]
        return steps if self.policy.caches == "per-step" else [*steps, "context"]

    @property
    def caches(self) -> Sequence[KVCache]:
        """One cache, or one for each denoising step."""
        return self._caches

    # Changes between chunks.

    def set_prompt(self, prompt: str, recache: bool = False, cut: bool = False) -> None:
        """Go on with another prompt.

        Args:
            prompt: Text of 1 to `MAX_PROMPT` characters.
            recache: First recompute the cached frames under the prompt, as LongLive does (arXiv 2509.22622). Before the
                first chunk there are none.
            cut: Begin another scene with it, where the policy knows cuts; called a cut in the chunk's events anyway.

        Raises:
            ValueError: The prompt cannot be used, or the policy has no shared cache to recompute.
        """
        prompt = check_prompt(prompt)
        if recache and self.next_policy.caches != "shared":
            raise ValueError(f"policy {self.next_policy.name!r} has no shared cache to recompute")
        self._pending.text = partial(self._change_prompt, prompt, recache, cut)

    def set_text(self, text: Tensor, recache: bool = False) -> None:
        """Go on with other text embeddings, [batch, tokens, text_dim], in place of a prompt; see `set_prompt`."""
        self._pending.text = partial(self._change_text, text, recache)

    def _change_text(self, text: Tensor, recache: bool, timer: _Timer) -> str:
        with timer.stage("text"):
            self._text = self.model.transformer.prepare_text(text)
        if recache and self.index:
            with timer.stage("rebuild"):
                self._caches = [self._recache()]
        return "text"

    def set_policy(self, policy: Policy, roles: HeadRoles | None = None) -> None:
        """Go on under another policy or other head roles.

        What the new policy would not keep is dropped at once; what an earlier one dropped stays dropped. Before the
        first chunk nothing is cached, so the stream is as one that began under the policy. The policy and roles in
        force change nothing.

        Args:
            policy: The policy of the next chunk.
            roles: Head roles; by default those in force.

        Raises:
            ValueError: The policy does not fit the model, needs roles that are missing, or caches something else.
        """
        roles = roles or self._pending.roles
        self.geometry.check_segments(policy.segments_of(self.geometry))
        self.geometry.check_groups(policy.groups(self.geometry, roles) or self.geometry.every_head)
        if self.index and policy.caches != self.policy.caches:
            raise ValueError(
                f"a running stream cannot change between {self.policy.name!r} and {policy.name!r}: "
                "they store different things; start anew"
            )
        self._pending.policy = policy
        self._pending.roles = roles

    def set_roles(self, roles: HeadRoles) -> None:
        """Go on with other head roles under the same policy. Raises ValueError when they are for another model."""
        self.set_policy(self.next_policy, roles)

    def _change_prompt(self, prompt: str, recache: bool, cut: bool, timer: _Timer) -> str | None:
        with timer.stage("text"):
            self._text = self.model.transformer.prepare_text(self.model.encode(prompt))
        recache = recache and self.index > 0
        unchanged = prompt == (self._prompt or self._opening) and not recache and not cut
        self._prompt = prompt
        if unchanged:
            return None
        if cut and self.policy.knows_cuts:
            self._cut(timer)
        if recache:
            with timer.stage("rebuild"):
                self._caches = [self._recache()]
        return f"{'cut' if cut else 'prompt'}: {prompt}"

    def _apply_changes(self, timer: _Timer) -> tuple[str, ...]:
        """Put what waits into force. Returns what changed, as events of the chunk."""
        events = [*self._change_policy(), *(change(timer) for change in self._pending.take())]
        return tuple(filter(None, events))

    def _change_policy(self) -> list[str]:
        """Go on under the policy and roles that wait. Returns what changed, as events of the chunk."""
        old_policy, old_roles = self._policy, self._roles
        policy, roles = self._policy, self._roles = self._pending.policy, self._pending.roles
        if policy == old_policy and roles == old_roles:
            return []
        groups = policy.groups(self.geometry, roles)
        if policy != old_policy or groups != policy.groups(self.geometry, old_roles):
            self._caches = [self._converted(cache) for cache in self._caches] if self.index else self._new_caches()
        events = [f"policy: {policy.name}"] if policy != old_policy or old_roles is None else []
        if roles is not None and old_roles is not None and roles != old_roles:
            events.append(f"roles: {roles.changes(old_roles)}")
        return events

    def _converted(self, cache: KVCache) -> KVCache:
        """What the policy in force would have kept of a cache."""
        groups = self.policy.groups(self.geometry, self.roles) or _groups_of(cache)
        cache = cache.regrouped(
            groups, self.policy.segments_of(self.geometry), self.policy.stored(self.model.transformer.dtype)
        )
        cache = evict(self.policy, ChunkState(self.index - 1, self._frames(self.index - 1), cache))
        return cache.regrouped(groups, cache.segments)

    def set_steps(self, count: int) -> None:
        """Go on with another number of denoising steps.

        Args:
            count: 1 to the number of steps that the model came with.

        Raises:
            ValueError: It has not so many, or the policy keeps a cache for each step and chunks are generated.
        """
        if self.index and self.next_policy.caches == "per-step":
            raise ValueError(f"policy {self.next_policy.name!r} keeps a cache for each step; start anew with {count}")
        self._pending.changes.append(partial(self._change_steps, self._loaded.with_steps(count)))

    def _change_steps(self, model: VideoModel, timer: _Timer) -> str | None:
        if model.schedule == self.model.schedule:
            return None
        self.model = model
        if self.index == 0:
            self._caches = self._new_caches()
        return f"steps: {len(model.schedule.sigmas)}"

    def _sigmas(self, chunk: int) -> tuple[float, ...]:
        """Noise levels of the denoising steps of a chunk; a cache for each step needs the same in all."""
        first = self.model.first_schedule if chunk == 0 and self.policy.caches != "per-step" else None
        return (first or self.model.schedule).sigmas

    def flush(self) -> None:
        """Forget everything but the first frame and the two newest ones, so that a new prompt acts at once.

        The rule of Infinity-RoPE (arXiv 2511.20649), for any policy with a cache.

        Raises:
            ValueError: The policy has none.
        """
        if self.next_policy.caches == "none":
            raise ValueError(f"policy {self.next_policy.name!r} has no cache to flush")
        self._pending.changes.append(self._flush)

    def cut(self) -> None:
        """Begin another scene with the next chunk. Raises ValueError when the policy knows no cuts."""
        if not self.next_policy.knows_cuts:
            raise ValueError(f"policy {self.next_policy.name!r} has no cut")
        self._pending.changes.append(self._cut)

    def _flush(self, timer: _Timer) -> str:
        for cache in self._caches:
            newest = max(cache.frames(), default=0)
            cache.evict({n: (g.pages.frame == 0) | (g.pages.frame > newest - 2) for n, g in cache.groups.items()})
        return "flush"

    def _cut(self, timer: _Timer) -> str:
        self._marks |= {"cut"}
        return "cut"

    # Generation.

    def step(self, probe: Probe | None = None) -> Chunk:
        """Generate the next chunk.

        Args:
            probe: Sees the attention of every pass.

        Returns:
            The chunk.

        Raises:
            ValueError: The latents are not finite.
        """
        device = self.model.device
        # Triton and CUDA graphs run on the current device.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), torch.inference_mode():
            passes = self.passes(probe)
            flow = None
            while True:
                try:
                    each = passes.send(flow)
                except StopIteration as end:
                    return end.value
                flow = self.model.transformer(
                    each.latents, each.timestep, each.text, each.cache, each.freqs_cis, each.probes
                )

    def passes(self, probe: Probe | None = None) -> Generator[Pass, Any, Chunk]:
        """Generate the next chunk, while someone else computes its passes; see `step`.

        Yields:
            Each pass, to be sent its flow.

        Returns:
            The chunk.
        """
        timer = _Timer(self.model.device)
        self._rebuild_passes = 0
        events = self._apply_changes(timer)
        if self.policy.caches == "none":
            with timer.stage("rebuild"):
                self._caches = [self._replay(self._cached_chunks())]
        for cache in self._caches:
            self.model.transformer.weights_for(cache.order)
        frames = self._frames(self.index)
        sigmas = self._sigmas(self.index)
        policy_probe = self._policy_probe()
        probes = Probes(each for each in (probe, policy_probe) if each is not None)
        with timer.stage("denoise"):
            rope = self._begin(frames)
            reads: dict[str, dict[str, Reads]] = {}
            x0, steps = yield from self._denoise(frames, sigmas, rope, probes, reads)
            self._check_finite(x0)
        cache = self._caches[0]
        attended = {name: group.pages for name, group in cache.groups.items()}
        kinds = page_kinds(self.policy, ChunkState(self.index, frames, cache))
        kv_tokens_read = cache.tokens_read()
        with timer.stage("context"):
            if self.policy.caches != "per-step":
                self._rewrite(cache)
                self._set_reads(cache, "context")
                if cache.apart:
                    cache.keep = keeper(self.policy, self._state(cache))
                latents = self._context_latents(self.index, x0)
                yield Pass(latents, 0.0, self._text, cache, rope, probes.begin(self.index, frames, "context"))
                reads["context"] = cache.reads
            kv_bytes = sum(each.bytes() for each in self._caches)
            kv_bytes_allocated = sum(each.allocated_bytes() for each in self._caches)
            mass = policy_probe.take()[0] if policy_probe else None
            self._caches = [self._evicted(each, frames, mass) for each in self._caches]
            kept = {name: self._kept(name, pages) for name, pages in attended.items()}
        video = None
        if self._decoder is not None:
            with timer.stage("decode"):
                video, self._decoder_state = self._decoder(x0[:1], self._decoder_state)
        last = PassReads.of(reads[f"step {len(sigmas) - 1}"], attended, kinds)
        others = {}
        if any(reads.values()):
            every = {name: PassReads.of(chosen, attended, kinds) for name, chosen in reads.items()}
            others = {name: each for name, each in every.items() if not each.reads_as(last)}
        self._remember(x0)
        self._marks = frozenset()
        self._index += 1
        return Chunk(
            index=self._index - 1,
            frames=frames,
            prompt=self._prompt,
            policy=self.policy.name,
            latents=x0,
            video=video,
            timings=Timings(**timer.seconds),
            kv_bytes=kv_bytes,
            kv_bytes_between=sum(each.bytes() for each in self._caches),
            kv_bytes_allocated=kv_bytes_allocated,
            kv_tokens={name: len(pages) * cache.page_tokens for name, pages in attended.items()},
            context_frames=len({frame for pages in last.pages.values() for frame in pages.frame.tolist()}),
            segments=cache.segments,
            pages=attended,
            kept=kept,
            events=events,
            x0_steps=steps,
            kinds=last.kinds,
            heads=_groups_of(cache),
            read=last.pages,
            steps=len(sigmas),
            kv_tokens_read=kv_tokens_read,
            other_reads=others,
            passes=len(sigmas) + (self.policy.caches != "per-step") + self._rebuild_passes,
        )

    def _policy_probe(self) -> FrameMassProbe | None:
        """A probe of the pass that the policy wants to see. Raises ValueError when chunks have no such pass."""
        wanted = self.policy.wants_attention(self.index, self._caches[0])
        if wanted is None:
            return None
        if wanted not in self.pass_names:
            raise ValueError(
                f"policy {self.policy.name!r} wants to see pass {wanted!r}; "
                f"a chunk of this model has {', '.join(self.pass_names)}"
            )
        return FrameMassProbe(passes={wanted})

    def _denoise(
        self,
        frames: tuple[int, ...],
        sigmas: tuple[float, ...],
        rope: Tensor,
        probes: Probes,
        reads: dict[str, dict[str, Reads]],
    ) -> Generator[Pass, Any, tuple[Tensor, tuple[Tensor, ...]]]:
        """Denoise a chunk. Returns its clean latents and, with `keep_steps`, those that each step predicted.

        Notes in `reads` what each of its passes read, see `KVCache.reads`.
        """
        shape = (self.geometry.batch, len(frames), *self.model.latent)
        device = self.model.device
        x = self.noise.initial(self.index, shape).to(device)
        steps = []
        for step, sigma in enumerate(sigmas):
            cache = self._caches[step if len(self._caches) > 1 else 0]
            self._set_reads(cache, f"step {step}")
            watching = probes.begin(self.index, frames, f"step {step}")
            flow = yield Pass(x, 1000 * sigma, self._text, cache, rope, watching)
            reads[f"step {step}"] = cache.reads
            x0 = x0_of(x, flow, sigma)
            if self.keep_steps:
                steps.append(x0)
            if step + 1 < len(sigmas):
                x = renoise(x0, self.noise.between(self.index, step, shape).to(device), sigmas[step + 1])
        return x0, tuple(steps)

    def _context_latents(self, chunk: int, x0: Tensor) -> Tensor:
        """What the context pass of a chunk reads: its clean latents, noised where the policy says so."""
        level = self.policy.context_noise
        if not level:
            return x0
        noise = self.noise.between(chunk, len(self._sigmas(chunk)) - 1, x0.shape)
        return renoise(x0, noise.to(x0.device), level)

    def _check_finite(self, x0: Tensor) -> None:
        """Raise ValueError for latents that are not finite: from here on everything would be."""
        if not x0.isfinite().all():
            raise ValueError(
                f"chunk {self.index + 1} came out with values that are not finite (NaN or infinity), so the stream "
                f"ends; try --precision bf16 or fp32, a lower strength of the adapter, or another file of weights"
            )

    def _begin(self, frames: tuple[int, ...]) -> Tensor:
        """Reserve pages for the chunk in every cache. Returns its RoPE."""
        positions = self.policy.chunk_positions(self._state(self._caches[0]))
        if positions is None:
            self._follow(frames)
            positions = frames
        for cache in self._caches:
            cache.begin(frames, positions, self._apart)
        return self._rope(positions)

    @property
    def _apart(self) -> bool:
        """Whether chunks lie apart from the pages. A pass that is captured cannot wait for what the policy says."""
        return self.policy.apart(self.geometry) and not self.model.transformer.captures

    def _state(self, cache: KVCache, step: str = "", chunk: int | None = None) -> ChunkState:
        """What the policy sees of a chunk, by default of the one that is being generated."""
        chunk = self.index if chunk is None else chunk
        text_keys = [keys for keys, _ in self._text.keys_values]
        return ChunkState(chunk, self._frames(chunk), cache, step=step, marks=self._marks, text_keys=text_keys)

    def _set_reads(self, cache: KVCache, step: str, chunk: int | None = None) -> None:
        """Let the policy choose what the next pass reads."""
        state = self._state(cache, step, chunk)
        cache.set_reads({name: self.policy.reads(name, state) for name in cache.groups})
        cache.select = partial(self._select, state) if self.policy.selects(step, state) else None

    def _select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        """Let the policy look at the queries of a layer, and ask again what the layer reads."""
        self.policy.select(state, layer, query)
        groups = [group.name for group, _ in state.cache.slices[layer]]
        state.cache.set_reads({name: self.policy.reads(name, state) for name in groups})

    def _rewrite(self, cache: KVCache) -> None:
        """Compute an earlier chunk anew where the policy asks for it and the whole chunk is cached."""
        chunk = self.policy.rewrites(self._state(cache))
        frames = () if chunk is None else self._frames(chunk)
        if chunk is None or not set(frames) <= set(cache.frames()):
            return
        cache.aim(frames)
        self._set_reads(cache, "rewrite", chunk)
        latents = self._context_latents(chunk, self._latents[chunk])
        self._pass(latents, 0.0, cache, self._rope(cache.positions_of(frames)))
        cache.aim(self._frames(self.index))

    def _follow(self, frames: tuple[int, ...]) -> None:
        """Move cached frames forward in time that are too far behind, so that a stream has no end."""
        for cache in self._caches:
            cached = cache.frames()
            far = [
                f for f, at in zip(cached, cache.positions_of(cached), strict=True) if frames[-1] - at >= POSITION_LIMIT
            ]
            if far:
                cache.reposition(far, POSITION_LIMIT // 2)

    def _pass(self, latents: Tensor, timestep: float, cache: KVCache, rope: Tensor) -> Tensor:
        self._rebuild_passes += 1
        return self.model.transformer(latents, timestep, self._text, cache, rope)

    def _frames(self, chunk: int) -> tuple[int, ...]:
        """The latent frames of a chunk."""
        count = self.geometry.frames_per_chunk
        return tuple(range(chunk * count, (chunk + 1) * count))

    def _rope(self, positions: Sequence[int]) -> Tensor:
        return self.model.transformer.rope(positions, self.geometry.rows, self.geometry.cols)

    # Caches.

    def _new_caches(self) -> list[KVCache]:
        count = len(self.model.schedule.sigmas) if self.policy.caches == "per-step" else 1
        return [self._new_cache() for _ in range(count)]

    def _new_cache(self) -> KVCache:
        transformer = self.model.transformer
        return KVCache(
            self.geometry,
            self.policy.groups(self.geometry, self.roles) or self.geometry.every_head,
            self.policy.segments_of(self.geometry),
            self.policy.stored(transformer.dtype),
            transformer.device,
        )

    def _replay(self, chunks: Iterable[int]) -> KVCache:
        """A new cache of these earlier chunks, each recomputed under the current prompt."""
        cache = self._new_cache()
        for chunk in chunks:
            frames = self._frames(chunk)
            positions = self._caches[0].positions_of(frames)
            cache.begin(frames, positions)
            self._pass(self._context_latents(chunk, self._latents[chunk]), 0.0, cache, self._rope(positions))
            cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
        return cache

    def _recache(self) -> KVCache:
        """The cached pages with keys and values recomputed under the current prompt (LongLive's KV re-cache)."""
        if self.policy.recache_frames:
            return self._recache_at_once()
        old = self._caches[0]
        new = self._replay(self._cached_chunks()).regrouped(_groups_of(old), old.segments)
        cached = {name: _pages_of(group.pages) for name, group in old.groups.items()}
        new.evict({name: _are_in(cached[name], group.pages) for name, group in new.groups.items()})
        new.notes = old.notes
        return new.regrouped(_groups_of(new), new.segments)

    def _recache_at_once(self) -> KVCache:
        """The cache with its newest frames recomputed under the current prompt, in one pass that sees them all."""
        end = self.index * self.geometry.frames_per_chunk
        frames = tuple(range(max(0, end - self.policy.recache_frames), end))
        old = self._caches[0]
        cache = old.regrouped(_groups_of(old), old.segments)
        state = ChunkState(self.index, frames, cache, step="recache")
        cache.evict({name: self.policy.keep_mask(name, group.pages, state) for name, group in cache.groups.items()})
        positions = self.policy.chunk_positions(state) or frames
        cache.begin(frames, positions)
        cache.set_reads({name: self.policy.reads(name, state) for name in cache.groups})
        chunks = [self._context_latents(chunk, self._latents[chunk]) for chunk in sorted(self._latents)]
        latents = torch.cat(chunks, 1)[:, -len(frames) :]
        self._pass(latents, 0.0, cache, self._rope(positions))
        return evict(self.policy, ChunkState(self.index - 1, self._frames(self.index - 1), cache))

    def _evicted(self, cache: KVCache, frames: tuple[int, ...], mass: PassMass | None) -> KVCache:
        """A cache after the eviction at the end of a chunk."""
        state = self._state(cache)
        if mass is not None:
            state = replace(state, mass=mass.mass, key_frames=mass.key_frames)
        return evict(self.policy, state)

    def _kept(self, name: str, attended: Pages) -> np.ndarray:
        """Which pages of a group are still cached, by any group where heads have been reassigned: bool [pages]."""
        groups = self._caches[0].groups
        now = [groups[name]] if name in groups else groups.values()
        return _are_in({page for group in now for page in _pages_of(group.pages)}, attended)

    def _remember(self, x0: Tensor) -> None:
        """Keep the latents that a re-cache would need."""
        self._latents[self.index] = x0
        first = (self.index + 1) * self.geometry.frames_per_chunk - self.policy.recache_frames
        newest = range(max(0, first) // self.geometry.frames_per_chunk, self.index + 1)
        cached = {*self._cached_chunks(), *newest}
        self._latents = {chunk: latents for chunk, latents in self._latents.items() if chunk in cached}

    def _cached_chunks(self) -> list[int]:
        """Earlier chunks with a cached frame."""
        return sorted({frame // self.geometry.frames_per_chunk for frame in self._caches[0].frames()})

    # Repetition and branches.

    @torch.inference_mode()
    def fork(self, noise: Noise | None = None, decode: bool = True, share: bool = False) -> Stream:
        """Begin a second stream that has the same past.

        Neither stream sees what the other does afterwards. With equal noise and equal changes they generate equal
        chunks.

        Args:
            noise: Of the second stream's chunks; by default that of this stream.
            decode: Whether they have a video, where those of this stream have one.
            share: Share the pages that both have, in place of copying them. Later chunks of both then equal those of a
                stream that was never forked up to rounding, not to the last bit. A policy that edits pages has them
                copied anyway.

        Raises:
            ValueError: Changes wait for the next chunk, or the decoder's state cannot be copied.
        """
        if self._pending != _Pending(self._policy, self._roles):
            raise ValueError("changes wait for the next chunk; generate it, then fork the stream")
        branch = copy(self)
        branch.noise = noise or self.noise
        if self._decoder is not None:
            branch._decoder = self._decoder if decode else None
            branch._decoder_state = self._decoder.copy(self._decoder_state) if decode and self.index else None
        branch._pending = _Pending(self._policy, self._roles)
        branch._caches = [cache.fork(share and not self._policy.edits_pages) for cache in self._caches]
        branch._latents = dict(self._latents)
        return branch

    @torch.inference_mode()
    def take_over(self, policy: Policy, roles: HeadRoles | None = None) -> None:
        """Go on as a stream that was under another policy from its beginning.

        Args:
            policy: It would have kept and read every page so far, and has the head groups of the caches
                (`fkv.batch.opening`). It drops now what it drops at the end of the newest chunk.
            roles: Head roles; by default those of the model.
        """
        self._policy = policy
        self._roles = roles or self.model.roles
        self._pending = _Pending(policy, self._roles)
        self._caches = [evict(policy, self._state(cache, chunk=self.index - 1)) for cache in self._caches]

    def snapshot(self) -> Snapshot:
        """Remember where the stream stands, so that `restore` lets it generate the next chunk again."""
        tables = tuple(cache.page_tables() for cache in self._caches)
        notes = tuple(deepcopy(cache.notes) for cache in self._caches)
        contents = tuple(cache.contents() if self._apart else () for cache in self._caches)
        return Snapshot(self._index, tuple(self._caches), tables, contents, notes, dict(self._latents))

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this stream, to generate the same chunk again.

        Only the chunk after the snapshot may have been generated since: later ones overwrite its pages, and a fork that
        shares pages moves them. Buffers that have grown stay large, and the decoder goes on from where it is.
        """
        self._index = snapshot.index
        self._caches = list(snapshot.caches)
        self._latents = dict(snapshot.latents)
        stored = zip(self._caches, snapshot.tables, snapshot.contents, snapshot.notes, strict=True)
        for cache, tables, contents, notes in stored:
            cache.restore(tables, contents)
            cache.notes = deepcopy(notes)


def _groups_of(cache: KVCache) -> dict[str, Heads]:
    return {name: group.heads for name, group in cache.groups.items()}


def _pages_of(pages: Pages) -> set[tuple[int, int]]:
    return set(zip(pages.frame.tolist(), pages.segment.tolist(), strict=True))


def _are_in(cached: set[tuple[int, int]], pages: Pages) -> np.ndarray:
    """Which pages are among those cached, bool [pages]."""
    return np.array([page in cached for page in zip(pages.frame.tolist(), pages.segment.tolist(), strict=True)], bool)


def check_prompt(prompt: str) -> str:
    """The prompt without surrounding space. Raises ValueError when it is empty, too long or not a text."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    if len(text) > MAX_PROMPT:
        raise ValueError(f"the prompt has {len(text):,} characters; at most {MAX_PROMPT:,} are read")
    if not isinstance(prompt, str) or any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in text):
        raise ValueError("the prompt must be a text without control characters; describe what the video should show")
    if not text:
        raise ValueError("the prompt is empty; describe what the video should show")
    return text


def check_seed(seed: int) -> int:
    """The seed. Raises ValueError unless it is a whole number from 0 to `MAX_SEED`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"the seed must be a whole number from 0 to {MAX_SEED:,}, not {seed!r}")
    return seed


def check_chunks(chunks: int) -> int:
    """The number of chunks. Raises ValueError unless it is a whole number from 1 to `MAX_CHUNKS`."""
    if isinstance(chunks, bool) or not isinstance(chunks, int) or not 1 <= chunks <= MAX_CHUNKS:
        raise ValueError(f"the number of chunks must be a whole number from 1 to {MAX_CHUNKS:,}, not {chunks!r}")
    return chunks
