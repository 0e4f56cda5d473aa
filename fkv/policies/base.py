"""What a policy is: it decides which pages stay in the cache after a chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.cache import KVCache, regrouped
from fkv.pages import Geometry, Head, Heads, Pages, Reads
from fkv.parameters import check_fields
from fkv.roles import HeadRoles

from .kinds import CURRENT, HELD, KEPT

Family = Literal["released", "ablation", "baseline"]

ContextNoise = Annotated[
    float, Field(ge=0, le=0.1, description="noise level of the latents that the context pass reads, against drift")
]


@dataclass(frozen=True)
class ChunkState:
    """What a policy sees of a chunk that is being generated or has just been.

    Args:
        chunk: Index of the chunk, from 0.
        frames: Its latent frames.
        cache: With the pages that the chunk attends to, its own included.
        mass: Attention mass of the pass that the policy asked for, [layers, heads, query frames, key frames].
        key_frames: Latent frames of the last axis of `mass`.
        step: The pass that is about to run: `step 0`, `step 1`, ..., `context`, `rewrite` or `recache`.
        marks: Marks of this chunk; `cut` begins a new scene.
        text_keys: Keys of the prompt in cross-attention, per layer [batch, heads, text tokens, head_dim].
    """

    chunk: int
    frames: tuple[int, ...]
    cache: KVCache
    mass: np.ndarray | None = None
    key_frames: tuple[int, ...] = ()
    step: str = ""
    marks: frozenset[str] = frozenset()
    text_keys: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Policy:
    """Base of all policies: a frozen dataclass whose fields are the parameters of the method.

    Subclasses override `keep_mask`, those with several head groups also `groups`, and `past_kind` says what their pages
    are for. A field's annotation declares its range, unit and meaning (`fkv.parameters`), and values are checked
    against it; what two fields have to do with each other is checked in `__post_init__`.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    family: ClassVar[Family] = "released"
    """Where the rule comes from: its authors' code, ablations of ours, or rules to compare with."""
    reading: ClassVar[str]
    """Latent frames that a pass reads by default: sink S, memory M, recent R, current chunk C, as in `S3 + R6 + C3`."""
    checked: ClassVar[str] = ""
    """The authors' repository that the policy equals by recorded numbers (`fkv parity`), "" where none was compared."""
    caches: ClassVar[Literal["shared", "per-step", "none"]] = "shared"
    """One cache for all denoising steps, one for each step, or none (earlier frames are recomputed for each chunk)."""
    compares_keys: ClassVar[bool] = False
    """Whether keys, hence what the video shows, decide which pages stay or are read."""

    _: KW_ONLY
    fp8: Annotated[
        bool, Field(description="store K and V in 8 bits (e4m3): half the memory, slower to read on a CPU")
    ] = False
    context_noise: ContextNoise = 0.0

    def __init_subclass__(cls) -> None:
        cls.__eq__ = Policy.__eq__  # type: ignore[method-assign]  # in place of that of the dataclass, to which 1 equals 1.0

    def __eq__(self, other: object) -> bool:
        """Whether another policy is the same; a share of 1.0 is not the number 1."""
        return type(self) is type(other) and _compared(self) == _compared(other)

    def __post_init__(self) -> None:
        check_fields(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, not {value}")
        if self.context_noise and self.caches == "per-step":
            raise ValueError("context_noise needs a context pass, and a cache for each denoising step has none")

    def segments_of(self, geometry: Geometry) -> int:
        """Pages per latent frame of a model."""
        return 1

    @property
    def unwrapped(self) -> Policy:
        """The registered policy: that below the silenced heads, or the policy itself."""
        return self

    @property
    def unsilenced(self) -> Policy:
        """The policy without silenced heads."""
        return self

    @property
    def commit_frames(self) -> int:
        """Newest frames that the context pass reads where it reads less than the denoising passes, else 0."""
        return 0

    @property
    def knows_cuts(self) -> bool:
        """Whether a chunk marked as a cut begins another scene (`Stream.cut`)."""
        return False

    @property
    def silenced_heads(self) -> tuple[Head, ...]:
        """Heads that attend to the current chunk alone, whatever the policy, ascending."""
        return ()

    @property
    def watches_attention(self) -> bool:
        """Whether what stays depends on what passes see, queries or attention mass."""
        return self.overrides("wants_attention") or self.overrides("select")

    @property
    def edits_pages(self) -> bool:
        """Whether the policy changes the content of pages of earlier chunks."""
        return self.overrides("edit") or self.overrides("rewrites")

    def overrides(self, hook: str) -> bool:
        """Whether the registered policy has a method of its own in place of `Policy`'s."""
        return getattr(type(self.unwrapped), hook) is not getattr(Policy, hook)

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        """The type of the cache for a model that computes in `dtype`."""
        return torch.float8_e4m3fn if self.fp8 else dtype

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        """Split the heads into groups that keep the same pages.

        Args:
            geometry: Sizes of the model.
            roles: Its head roles, if there are any.

        Returns:
            Group name -> heads per layer; None to keep the groups that the cache already has.

        Raises:
            ValueError: The policy needs head roles and there are none for this model.
        """
        return None

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        """Choose the pages that later chunks attend to.

        It may write to `cache.notes`, what the policy remembers from chunk to chunk.

        Args:
            group: Name of a head group.
            pages: Its pages, those of the chunk included.
            state: The chunk that has just been generated.

        Returns:
            True for pages that stay, bool [pages].
        """
        raise NotImplementedError

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        """What a pass reads of a head group; None: every page, as it is stored.

        It may write to `cache.notes`, so call it for each pass in turn, not only to look.
        """
        return None

    def apart(self, geometry: Geometry) -> bool:
        """Whether the chunk lies apart from the pages until its context pass (`fkv.cache`).

        That takes less memory where few pages stay, for one more copy of these in every pass, so it is for models whose
        chunks are large. It needs a policy whose passes read every page as it is stored, and whose `keep_mask` can say
        what stays of a group as soon as the first layer of the group has the keys of the context pass. So policies that
        choose what passes read, edit pages, watch attention or regroup heads keep the chunk among the pages of every
        layer.
        """
        return False

    def chunk_positions(self, state: ChunkState) -> Sequence[int] | None:
        """Temporal RoPE position of each frame of the chunk, for its queries and keys; None: the frame numbers."""
        return None

    def selects(self, step: str, state: ChunkState) -> bool:
        """Whether a pass calls `select` in every layer before the layer reads."""
        return False

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        """Decide what a layer reads by its queries; `reads` is asked again afterwards.

        Args:
            state: The chunk, its cache and the pass.
            layer: Attention layer.
            query: After RoPE, [batch, heads in cache order, chunk tokens, head_dim].
        """

    def rewrites(self, state: ChunkState) -> int | None:
        """An earlier chunk whose keys and values are computed anew right before the context pass, None for no chunk.

        The pass that does so is named `rewrite`; `reads` says what it reads, and its `frames` are those of that chunk.
        """
        return None

    def settled(self, state: ChunkState) -> bool:
        """Whether the rule has begun to leave frames out."""
        return True

    def edit(self, state: ChunkState) -> None:
        """Change the content of pages at the end of a chunk, before `keep_mask`."""

    @property
    def recache_frames(self) -> int:
        """Newest frames that a re-cache recomputes in one pass; 0 replays the cached chunks one by one."""
        return 0

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        """Say what a page is for while the chunk of `state` attends to it.

        Args:
            group: Head group that holds the page.
            frame: Latent frame of the page.
            segment: Segment of that frame.
            state: The chunk that attends; its cache holds the page.

        Returns:
            A key of `fkv.policies.kinds.KINDS`.
        """
        return CURRENT if frame >= state.frames[0] else self.past_kind(group, frame, segment, state)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        """What `page_kind` says of a page of an earlier chunk."""
        return KEPT

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        """The pass (`step 0`, ..., `context`) of a chunk whose attention mass the policy needs, None for no pass."""
        return None

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        """New head groups from now on, None to keep them. For policies that class heads while they run."""
        return None


def _compared(policy: Any) -> list[tuple[type, object]]:
    values = [getattr(policy, field.name) for field in fields(policy) if field.compare]
    return [(type(value), value) for value in values]


def check_whole_chunks(name: str, frames: int, geometry: Geometry) -> None:
    """Raise ValueError unless a parameter in latent frames is a multiple of the model's chunk."""
    if frames % geometry.frames_per_chunk:
        raise ValueError(f"{name} must be a multiple of the chunk's {geometry.frames_per_chunk} frames, not {frames}")


def check_recent(frames: int, geometry: Geometry) -> None:
    """Raise ValueError unless the newest frames that a policy keeps hold a chunk of the model."""
    if frames < geometry.frames_per_chunk:
        raise ValueError(f"recent_frames must be at least the chunk's {geometry.frames_per_chunk} frames, not {frames}")


def keeper(policy: Policy, state: ChunkState) -> Callable[[str], np.ndarray]:
    """What a policy keeps of a head group after a chunk, as `KVCache.settle` asks for it."""
    return lambda name: policy.keep_mask(name, state.cache.groups[name].pages, state)


def evict(policy: Policy, state: ChunkState) -> KVCache:
    """Drop what a policy drops at the end of a chunk, after reassigning heads where the policy asks for it.

    Args:
        policy: What decides.
        state: The chunk that has been generated, and the cache that still has all of its pages.

    Returns:
        The cache to go on with: that of `state`, or a new one when heads were reassigned.
    """
    state.cache.reading.choose(dict.fromkeys(state.cache.groups))
    state.cache.select = state.cache.keep = None
    policy.edit(state)
    groups = policy.reassign_heads(state)
    cache = state.cache if groups is None else regrouped(state.cache, groups, state.cache.segments)
    keep = keeper(policy, replace(state, cache=cache))
    cache.evict({n: keep(n) if group.stays is None else group.stays.mask for n, group in cache.groups.items()})
    return cache if groups is None else regrouped(cache, groups, cache.segments)


@dataclass(frozen=True)
class PassReads:
    """What a pass read, by head group.

    Args:
        pages: The pages that it read, at the positions where it read them.
        kinds: What each page of the cache was for, a key of `fkv.policies.kinds.KINDS`; `held` where it was not read.
    """

    pages: dict[str, Pages]
    kinds: dict[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, reads: Mapping[str, Reads], cached: Mapping[str, Pages], kinds: Mapping[str, tuple[str, ...]]
    ) -> PassReads:
        """What a pass read.

        Args:
            reads: Head group -> what the policy chose to read; of groups that it leaves out, every page as stored.
            cached: Head group -> all pages.
            kinds: Head group -> what each of these is for, as `page_kinds` returns it.
        """
        pages = {name: reads[name].of(every) if name in reads else every for name, every in cached.items()}
        marked = {}
        for name, every in cached.items():
            read = np.isin(every.slot, pages[name].slot).tolist()
            marked[name] = tuple(kind if now else HELD for kind, now in zip(kinds[name], read, strict=True))
        return cls(pages, marked)

    def reads_as(self, other: PassReads) -> bool:
        """Whether another pass read the same pages at the same positions."""
        return all(
            np.array_equal(mine.slot, theirs.slot) and np.array_equal(mine.position, theirs.position)
            for mine, theirs in zip(self.pages.values(), other.pages.values(), strict=True)
        )


def page_kinds(policy: Policy, state: ChunkState) -> dict[str, tuple[str, ...]]:
    """Say what the pages of every head group are for, head group -> a key of `fkv.policies.kinds.KINDS` for each."""
    return {
        name: tuple(
            policy.page_kind(name, frame, segment, state)
            for frame, segment in zip(group.pages.frame.tolist(), group.pages.segment.tolist(), strict=True)
        )
        for name, group in state.cache.groups.items()
    }
