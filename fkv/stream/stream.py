"""`Stream`: one live generation, chunk by chunk."""

from __future__ import annotations

import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.models.base import VideoModel
from fkv.pages import Geometry, Pages, Reads
from fkv.policies import ChunkState, PassReads, Policy, check_fit, evict, keeper, page_kinds, write
from fkv.roles import HeadRoles
from fkv.sampler import Noise, SeededNoise
from fkv.transformer.passes import Pass
from fkv.transformer.probes import Probe, Probes

from .changes import Pending, change_prompt, change_scene, change_steps, change_text, flush
from .chunk import Chunk, Timer, Timings
from .limits import check_prompt, check_seed
from .passes import begin, denoise, evicted, policy_probe, rewrite, set_reads
from .recache import replay
from .snapshot import Snapshot
from .state import StreamState


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
        _, height, width = model.latent
        batch = 1 if text is None else len(text)
        geometry = model.transformer.geometry(height, width, model.frames_per_chunk, batch)
        noise = noise or SeededNoise(check_seed(seed))
        self.keep_steps = keep_steps
        self._loaded = model
        self._state = StreamState(model, noise, geometry, policy, roles or model.roles)
        self._state.caches = self._state.new_caches()
        self._pending = Pending(self._state.policy, self._state.roles)
        self._decoder = model.decoder if decode else None
        self._decoder_state: Any = None
        self._opening = check_prompt(prompt) if text is None else ""
        if text is None:
            self.set_prompt(self._opening)
        else:
            self._state.text = self._state.prepare_text(text)

    def __repr__(self) -> str:
        prompt = textwrap.shorten(self.prompt or self._opening, 60, placeholder=" ...")
        return f"Stream({self.model.name!r}, {write(self.policy)}, {prompt!r}, next chunk {self.index})"

    @property
    def model(self) -> VideoModel:
        """The model, with the denoising steps of the newest chunk."""
        return self._state.model

    @property
    def geometry(self) -> Geometry:
        """Sizes of the cache."""
        return self._state.geometry

    @property
    def noise(self) -> Noise:
        """The noise of the chunks to come."""
        return self._state.noise

    @noise.setter
    def noise(self, noise: Noise) -> None:
        self._state.noise = noise

    @property
    def index(self) -> int:
        """Index of the next chunk, from 0."""
        return self._state.index

    @property
    def prompt(self) -> str:
        """The prompt of the newest chunk, "" before the first and under embeddings in place of a prompt."""
        return self._state.prompt

    @property
    def policy(self) -> Policy:
        """The policy of the newest chunk."""
        return self._state.policy

    @property
    def roles(self) -> HeadRoles | None:
        """The head roles of the newest chunk."""
        return self._state.roles

    @property
    def next_policy(self) -> Policy:
        """The policy of the next chunk."""
        return self._pending.policy

    @property
    def next_roles(self) -> HeadRoles | None:
        """The head roles of the next chunk."""
        return self._pending.roles

    @property
    def pass_names(self) -> list[str]:
        """The passes of the next chunk: `step 0`, `step 1`, ... and, with one cache for all steps, `context`."""
        return self._state.pass_names

    @property
    def caches(self) -> Sequence[KVCache]:
        """One cache, or one for each denoising step."""
        return self._state.caches

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
        self._check_recache(recache)
        self._pending.text = partial(change_prompt, prompt=prompt, recache=recache, cut=cut, opening=self._opening)

    def set_text(self, text: Tensor, recache: bool = False) -> None:
        """Go on with other text embeddings in place of a prompt, see `set_prompt`.

        Args:
            text: [batch, tokens, text_dim], or [1, tokens, text_dim] for all videos.
            recache: See `set_prompt`.

        Raises:
            ValueError: The embeddings have another shape, or the policy has no shared cache to recompute.
        """
        self._check_recache(recache)
        self._pending.text = partial(change_text, text=self._state.prepare_text(text), recache=recache)

    def _check_recache(self, recache: bool) -> None:
        if recache and self.next_policy.caches != "shared":
            raise ValueError(f"policy {self.next_policy.name!r} has no shared cache to recompute")

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
        check_fit(policy, self.geometry, roles)
        if self.index and policy.caches != self.policy.caches:
            raise ValueError(
                f"a running stream cannot change between {self.policy.name!r} and {policy.name!r}: "
                "their caches differ in kind; start a new stream"
            )
        self._pending.policy = policy
        self._pending.roles = roles

    def set_roles(self, roles: HeadRoles) -> None:
        """Go on with other head roles under the same policy. Raises ValueError when they are for another model."""
        self.set_policy(self.next_policy, roles)

    def set_steps(self, count: int) -> None:
        """Go on with another number of denoising steps.

        Args:
            count: 1 to the number of steps that the model came with.

        Raises:
            ValueError: It has not so many, or the policy keeps a cache for each step and chunks are generated.
        """
        if self.index and self.next_policy.caches == "per-step":
            raise ValueError(
                f"policy {self.next_policy.name!r} keeps a cache for each step; start a new stream to use {count} steps"
            )
        self._pending.changes.append(partial(change_steps, model=self._loaded.with_steps(count)))

    def flush(self) -> None:
        """Forget everything but the first frame and the two newest ones, so that a new prompt acts at once.

        The rule of Infinity-RoPE (arXiv 2511.20649), for any policy with a cache.

        Raises:
            ValueError: The policy has none.
        """
        if self.next_policy.caches == "none":
            raise ValueError(f"policy {self.next_policy.name!r} has no cache to flush")
        self._pending.changes.append(flush)

    def cut(self) -> None:
        """Begin another scene with the next chunk. Raises ValueError when the policy knows no cuts."""
        if not self.next_policy.knows_cuts:
            raise ValueError(f"policy {self.next_policy.name!r} has no cut")
        self._pending.changes.append(change_scene)

    @property
    def begun_passes(self) -> int:
        """Transformer passes of the chunk in progress; also valid after its decoder refused the chunk."""
        state = self._state
        steps = len(state.sigmas(state.index))
        return steps + (state.policy.caches != "per-step") + state.rebuild_passes

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
        state = self._state
        timer = Timer(state.model.device)
        state.rebuild_passes = 0
        events = self._pending.apply(state, timer)
        policy = state.policy
        if policy.caches == "none":
            with timer.stage("rebuild"):
                state.caches = [replay(state, state.cached_chunks())]
        for cache in state.caches:
            state.model.transformer.weights_for(cache.order)
        frames = state.frames(state.index)
        steps = len(state.sigmas(state.index))
        watching = policy_probe(state)
        probes = Probes(each for each in (probe, watching) if each is not None)
        reads: dict[str, dict[str, Reads]] = {}
        with timer.stage("denoise"):
            rope = begin(state)
            x0, x0_steps = yield from denoise(state, rope, probes, reads, self.keep_steps)
            _check_finite(x0, state.index)
        cache = state.caches[0]
        attended = {name: group.pages for name, group in cache.groups.items()}
        kinds = page_kinds(policy, ChunkState(state.index, frames, cache))
        kv_tokens_read = cache.tokens_read()
        with timer.stage("context"):
            if policy.caches != "per-step":
                rewrite(state, cache)
                set_reads(state, cache, "context")
                if cache.apart:
                    cache.keep = keeper(policy, state.seen(cache))
                latents = state.context_latents(state.index, x0)
                yield Pass(latents, 0.0, state.text, cache, rope, probes.begin(state.index, frames, "context"))
                reads["context"] = dict(cache.reading.chosen)
            kv_bytes = sum(each.bytes() for each in state.caches)
            kv_bytes_allocated = sum(each.allocated_bytes() for each in state.caches)
            mass = watching.take()[0] if watching else None
            state.caches = [evicted(state, each, mass) for each in state.caches]
            kept = _kept(state.caches[0], attended)
        video = None
        passes = self.begun_passes
        if self._decoder is not None:
            with timer.stage("decode"):
                video, self._decoder_state = self._decoder(x0[:1], self._decoder_state)
        last, others = _read_by_pass(reads, f"step {steps - 1}", attended, kinds)
        state.remember(x0)
        state.marks = frozenset()
        state.index += 1
        return Chunk(
            index=state.index - 1,
            frames=frames,
            prompt=state.prompt,
            policy=policy.name,
            latents=x0,
            video=video,
            timings=Timings(**timer.seconds),
            kv_bytes=kv_bytes,
            kv_bytes_between=sum(each.bytes() for each in state.caches),
            kv_bytes_allocated=kv_bytes_allocated,
            kv_tokens={name: len(pages) * cache.page_tokens for name, pages in attended.items()},
            context_frames=len({frame for pages in last.pages.values() for frame in pages.frame.tolist()}),
            segments=cache.segments,
            pages=attended,
            kept=kept,
            events=events,
            x0_steps=x0_steps,
            kinds=last.kinds,
            heads=cache.heads,
            read=last.pages,
            steps=steps,
            kv_tokens_read=kv_tokens_read,
            other_reads=others,
            passes=passes,
        )

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
        state = self._state
        if self._pending != Pending(state.policy, state.roles):
            raise ValueError("changes wait for the next chunk; generate it, then fork the stream")
        branch = copy(self)
        if self._decoder is not None:
            branch._decoder = self._decoder if decode else None
            branch._decoder_state = self._decoder.copy(self._decoder_state) if decode and state.index else None
        branch._pending = Pending(state.policy, state.roles)
        branch._state = replace(
            state,
            noise=noise or state.noise,
            caches=[cache.fork(share and not state.policy.edits_pages) for cache in state.caches],
            latents=dict(state.latents),
        )
        return branch

    @torch.inference_mode()
    def take_over(self, policy: Policy, roles: HeadRoles | None = None) -> None:
        """Go on as a stream that was under another policy from its beginning.

        Args:
            policy: It would have kept and read every page so far, and has the head groups of the caches
                (`fkv.batch.opening`). It drops now what it drops at the end of the newest chunk.
            roles: Head roles; by default those of the model.
        """
        state = self._state
        state.policy = policy
        state.roles = roles or state.model.roles
        self._pending = Pending(policy, state.roles)
        state.caches = [evict(policy, state.seen(cache, chunk=state.index - 1)) for cache in state.caches]

    def snapshot(self) -> Snapshot:
        """Remember where the stream stands, so that `restore` lets it generate the next chunk again."""
        return Snapshot.of(self._state)

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this stream, to generate the same chunk again.

        Only the chunk after the snapshot may have been generated since: later ones overwrite its pages, and a fork that
        shares pages moves them. No change may have come into force with it but another prompt without re-cache, which
        stays. Buffers that have grown stay large, and the decoder goes on from where it is.
        """
        snapshot.restore(self._state)


def _check_finite(x0: Tensor, chunk: int) -> None:
    """Raise ValueError for latents that are not finite: from here on everything would be."""
    if not x0.isfinite().all():
        raise ValueError(
            f"chunk {chunk + 1} came out with values that are not finite (NaN or infinity), so the stream "
            f"ends; try --precision bf16 or fp32, a lower strength of the adapter, or another file of weights"
        )


def _kept(cache: KVCache, attended: Mapping[str, Pages]) -> dict[str, np.ndarray]:
    """Which pages that a chunk attended to are still cached, by any group where heads have been reassigned."""
    cached = {name: group.pages.names for name, group in cache.groups.items()}
    anywhere = set().union(*cached.values())
    return {name: pages.among(cached.get(name, anywhere)) for name, pages in attended.items()}


def _read_by_pass(
    reads: Mapping[str, Mapping[str, Reads]],
    last_step: str,
    attended: Mapping[str, Pages],
    kinds: Mapping[str, tuple[str, ...]],
) -> tuple[PassReads, dict[str, PassReads]]:
    """What the last denoising pass read, and the other passes where that differs."""
    last = PassReads.of(reads[last_step], attended, kinds)
    if not any(reads.values()):
        return last, {}
    every = {name: PassReads.of(chosen, attended, kinds) for name, chosen in reads.items()}
    return last, {name: each for name, each in every.items() if not each.reads_as(last)}
