"""What a stream carries from chunk to chunk, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.models.base import VideoModel
from fkv.pages import Geometry
from fkv.policies import ChunkState, Policy
from fkv.roles import HeadRoles
from fkv.sampler import Noise, Schedule, renoise
from fkv.transformer.passes import TextContext

NO_TEXT = TextContext(())


@dataclass
class StreamState:
    """What a stream carries from chunk to chunk.

    Args:
        model: With the denoising steps in force.
        noise: Of all chunks.
        geometry: Sizes of the cache.
        policy: In force.
        roles: In force.
        prompt: Of the newest chunk, "" before the first and under embeddings in place of a prompt.
        text: The prompt as cross-attention reads it.
        caches: One, or one for each denoising step.
        index: Of the next chunk.
        latents: Chunk -> its clean latents, of chunks that a re-cache would need.
        marks: Marks of the next chunk; `cut` begins a new scene.
        rebuild_passes: Passes that were computed beside those of the chunk itself, since it began.
    """

    model: VideoModel
    noise: Noise
    geometry: Geometry
    policy: Policy
    roles: HeadRoles | None
    prompt: str = ""
    text: TextContext = NO_TEXT
    caches: list[KVCache] = field(default_factory=list)
    index: int = 0
    latents: dict[int, Tensor] = field(default_factory=dict)
    marks: frozenset[str] = frozenset()
    rebuild_passes: int = 0

    def frames(self, chunk: int) -> tuple[int, ...]:
        """The latent frames of a chunk."""
        count = self.geometry.frames_per_chunk
        return tuple(range(chunk * count, (chunk + 1) * count))

    def schedule(self, chunk: int) -> Schedule:
        """The denoising steps of a chunk; a cache for each step needs the same in all."""
        first = self.model.first_schedule if chunk == 0 and self.policy.caches != "per-step" else None
        return first or self.model.schedule

    def sigmas(self, chunk: int) -> tuple[float, ...]:
        """Noise levels of the denoising steps of a chunk."""
        return self.schedule(chunk).sigmas

    @property
    def pass_names(self) -> list[str]:
        """The passes of the next chunk: `step 0`, `step 1`, ... and, with one cache for all steps, `context`."""
        steps = [f"step {step}" for step in range(len(self.sigmas(self.index)))]
        return steps if self.policy.caches == "per-step" else [*steps, "context"]

    @property
    def apart(self) -> bool:
        """Whether chunks lie apart from the pages; not while passes are captured as CUDA graphs: a captured pass cannot
        ask the policy."""
        return self.policy.apart(self.geometry) and not self.model.transformer.captures

    def seen(self, cache: KVCache, step: str = "", chunk: int | None = None) -> ChunkState:
        """What the policy sees of a chunk, by default of the one that is being generated."""
        chunk = self.index if chunk is None else chunk
        text_keys = [keys for keys, _ in self.text.keys_values]
        return ChunkState(chunk, self.frames(chunk), cache, step=step, marks=self.marks, text_keys=text_keys)

    def prepare_text(self, embeds: Tensor) -> TextContext:
        """A prompt as cross-attention reads it, from its embeddings; a single text is that of all videos.

        Raises:
            ValueError: They are neither one text nor one for each video, or have another size.
        """
        batch = self.geometry.batch
        each = torch.cat([embeds] * batch) if len(embeds) == 1 else embeds
        context = self.model.transformer.prepare_text(each)
        if len(embeds) not in (1, batch):
            raise ValueError(f"there are {len(embeds)} texts for a batch of {batch}; give one for all, or one for each")
        return context

    def new_caches(self) -> list[KVCache]:
        """Empty caches for the policy in force."""
        count = len(self.model.schedule.sigmas) if self.policy.caches == "per-step" else 1
        return [self.new_cache() for _ in range(count)]

    def new_cache(self) -> KVCache:
        """An empty cache for the policy in force."""
        transformer = self.model.transformer
        return KVCache(
            self.geometry,
            self.policy.groups(self.geometry, self.roles) or self.geometry.every_head,
            self.policy.segments_of(self.geometry),
            self.policy.stored(transformer.dtype),
            transformer.device,
        )

    def cached_chunks(self) -> list[int]:
        """Earlier chunks with a cached frame."""
        return sorted({frame // self.geometry.frames_per_chunk for frame in self.caches[0].frames()})

    def remember(self, x0: Tensor) -> None:
        """Keep the clean latents of the chunk, and of earlier ones those that a re-cache would need."""
        self.latents[self.index] = x0
        first = (self.index + 1) * self.geometry.frames_per_chunk - self.policy.recache_frames
        newest = range(max(0, first) // self.geometry.frames_per_chunk, self.index + 1)
        needed = {*self.cached_chunks(), *newest}
        self.latents = {chunk: latents for chunk, latents in self.latents.items() if chunk in needed}

    def context_latents(self, chunk: int, x0: Tensor) -> Tensor:
        """What the context pass of a chunk reads: its clean latents, noised where the policy says so."""
        level = self.policy.context_noise
        if not level:
            return x0
        noise = self.noise.between(chunk, len(self.sigmas(chunk)) - 1, x0.shape)
        return renoise(x0, noise.to(x0.device), level)

    def rope(self, positions: Sequence[int]) -> Tensor:
        """RoPE of a chunk whose frames have these positions in time."""
        return self.model.transformer.rope(positions, self.geometry.rows, self.geometry.cols)

    def rebuild(self, latents: Tensor, cache: KVCache, rope: Tensor) -> None:
        """Run a pass at timestep 0 beside those of the chunk, for the keys and values that it stores."""
        self.rebuild_passes += 1
        self.model.transformer(latents, 0.0, self.text, cache, rope)
