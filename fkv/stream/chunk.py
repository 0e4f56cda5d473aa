"""A generated chunk: what it is, what it attended to and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from fkv.pages import Heads, Pages
from fkv.policies import PassReads


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


@dataclass
class Timer:
    """Measures the stages of a chunk on a device; `seconds` has the time of each by its name."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Seconds by the clock, once the device has done what it was given."""
        if self.device.type == "cuda":
            # Not the whole device: a decoder may run beside.
            torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        began = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began


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

    def __repr__(self) -> str:
        size = "no video" if self.video is None else "video of {} x {} x {}".format(*self.video.shape[:3])
        frames = f"frames {self.frames[0]} to {self.frames[-1]}"
        cost = f"{self.kv_bytes / 1e6:,.1f} MB of K and V, {self.timings.total:.2f} s"
        return f"Chunk({self.index}, {frames}, {self.policy}, {size}, {cost})"

    @property
    def video_frames(self) -> int:
        return 0 if self.video is None else len(self.video)


def video_of(chunks: Sequence[Chunk]) -> np.ndarray:
    """Join the decoded video of chunks: uint8 [T, H, W, 3].

    Raises:
        ValueError: There are no chunks, or one was not decoded.
    """
    videos = [chunk.video for chunk in chunks if chunk.video is not None]
    if not videos or len(videos) < len(chunks):
        raise ValueError("the chunks have no video; stream with a model that has a decoder")
    return np.concatenate(videos)
