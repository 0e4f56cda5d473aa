"""What choosing pages by queries costs and brings: keys read, seconds of choosing, PSNR to full, agreement, operations.

The operations are those that secure computation charges for. Nothing is computed securely here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fkv import policies
from fkv.choices import ChoiceProbe
from fkv.comparison import interleave, psnr, speed_ratios
from fkv.models.base import VideoModel
from fkv.policies import ChunkState, Policy
from fkv.policies.mpcache import MPCache
from fkv.policies.selection import share_of
from fkv.policies.wrapper import Wrapper
from fkv.stream import Chunk, Stream
from fkv.world import PROMPT

from .drawing import drawn
from .report import lines

POLICIES = (
    "full",
    "mpcache",
    "mpcache:ratio2=1.0",
    "mpcache:ratio2=0.5",
    "mpcache:ratio2=0.1",
    "mpcache:bound=exact",
    "mpcache:bound=mean",
    "mpcache:ratio1=1.0",
    "mpcache:share_layers=1",
    "mpcache:reuse_steps=false",
    "mpcache:threshold=0.0",
    "forcing-kv",
)
ALONE = "mpcache:share_layers=1,reuse_steps=false"
"""Every layer and pass chooses for itself, so that agreement is not made by sharing."""
LAST = 3  # chunks at the full context length whose seconds count
MEANINGS = {
    "kv_tokens": "mean over layers of the tokens that a head holds at the last chunk",
    "kv_tokens_read": "mean over layers of the keys that a head reads there in a pass",
    "psnr_vs_full": "decibels to the frames of full with the same noise, all chunks but the first two as one video; "
    "mean and standard error over seeds, and each seed's; null where the frames are equal",
    "speed_vs_full": "median over the last chunks of all seeds of full's seconds / this policy's, in turn",
    "choosing_s": "seconds per chunk of digests, scores, choice and judgement, part of generate_s",
    "overlap": "pages that both choose / pages that one or the other chooses, where every layer and pass chooses alone",
    "operations": "per chunk: comparisons of the top-k (k rounds of a maximum), of the exact bound and of the largest "
    "score over strips; multiplications of the similarity, before and after its terms are joined; one-hot bits of "
    "gathering, a vector over all candidates for each page that is kept",
}


@dataclass(frozen=True)
class Timed(Wrapper):
    """Another policy whose seconds of choosing are noted, chunk by chunk."""

    spent: dict[int, float] = field(default_factory=dict, compare=False)

    help = "another policy, timed"

    @property
    def title(self) -> str:
        return self.base.name

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        began = time.perf_counter()
        self.base.select(state, layer, query)
        self.spent[state.chunk] = self.spent.get(state.chunk, 0.0) + time.perf_counter() - began


def operations(policy: MPCache, frames: int, pages: int, strips: int, head_dim: int) -> dict[str, int]:
    """Count what one head's choice costs in secure computation.

    Args:
        policy: Whose rule.
        frames: Earlier frames with a page that is held.
        pages: Earlier pages that are held.
        strips: Mean queries that each digest is compared with.
        head_dim: Elements of a key.

    Returns:
        `comparisons`, `multiplications_before` and `multiplications` of the similarity before and after its terms are
        joined (the exact bound cannot join them), `one_hot_bits`.
    """
    opened = min(share_of(policy.ratio1, frames), max(frames - 2, 0))
    flat = policy.ratio1 == 1
    candidates = pages if flat else round(pages * opened / max(frames, 1))
    kept = min(share_of(policy.ratio2, pages), candidates)
    levels = [(candidates, kept)] if flat else [(frames, opened), (candidates, kept)]
    digests = sum(count for count, _ in levels)
    terms = head_dim * strips * digests
    bound = terms if policy.bound == "exact" else 0
    top = sum(k * count - k * (k + 1) // 2 for count, k in levels)
    return {
        "comparisons": top + bound + (strips - 1) * digests,
        "multiplications_before": terms * (1 if policy.bound == "mean" else 2),
        "multiplications": terms * (2 if policy.bound == "exact" else 1),
        "one_hot_bits": sum(k * count for count, k in levels),
    }


def _operations_of(policy: Policy, chunk: Chunk, stream: Stream) -> dict[str, int] | None:
    """The operations of all choices of a chunk, from its page tables."""
    if not isinstance(policy, MPCache):
        return None
    passes = 1 if policy.reuse_steps else len(stream.model.schedule.sigmas) + 1
    total: dict[str, int] = {}
    for pages in chunk.pages.values():
        earlier = pages.frame[pages.frame < chunk.frames[0]]
        counts = operations(policy, len(np.unique(earlier)), len(earlier), chunk.segments, stream.geometry.head_dim)
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count * passes * stream.geometry.heads
    return total


def measure(
    model: VideoModel, context: int, seeds: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Generate streams up to a context length under each of `POLICIES`, in turn and on the same noise.

    A sliding window that reads as many keys as `mpcache` at the last chunk joins them.

    Args:
        model: What generates; it has a decoder.
        context: Latent frames that the last chunk attends to under `full`, its own included.
        seeds: How many seeds, counted from 0.
        progress: Called after every chunk.

    Returns:
        `rows`, one per policy, as `MEANINGS` explains them; `overlap` with the matrices `layers` and `steps`.

    Raises:
        ValueError: The context is a single chunk.
    """
    chunks = context // model.frames_per_chunk
    if chunks < 2:
        raise ValueError(f"--selection chooses among earlier chunks; name a --context of at least "
                         f"{2 * model.frames_per_chunk} latent frames")  # fmt: skip
    probe = ChoiceProbe()
    alone = Stream(model, policies.parse(ALONE), PROMPT, decode=False)
    for index in range(chunks):
        alone.step(probe if index == chunks - 1 else None)
        progress()
    overlap = probe.overlap()
    window = _window_like(model, chunks, progress)
    texts = [*POLICIES, window]
    made: dict[str, list[list[Chunk]]] = {text: [] for text in texts}
    spent: dict[str, list[float]] = {text: [] for text in texts}
    for seed in range(seeds):
        timed = {text: Timed(policies.parse(text)) for text in texts}
        streams = {text: Stream(model, policy, PROMPT, seed) for text, policy in timed.items()}
        own: dict[str, list[Chunk]] = {text: [] for text in texts}
        for which, chunk in interleave(list(streams.values()), chunks):
            own[texts[which]].append(chunk)
            progress()
        for text in texts:
            made[text].append(own[text])
            spent[text] += [timed[text].spent.get(chunk.index, 0.0) for chunk in own[text][-LAST:]]
    rows = []
    for text in texts:
        rows.append(
            {
                "policy": text,
                **_figures(made["full"], made[text]),
                "choosing_s": statistics.median(spent[text]),
                "operations": _operations_of(policies.parse(text), made[text][0][-1], alone),
            }
        )
    return {
        "context": context,
        "seeds": seeds,
        "rows": rows,
        "overlap": {
            "policy": ALONE,
            "passes": list(overlap.passes),
            "layers": np.round(overlap.layers, 4).tolist(),
            "steps": np.round(overlap.steps, 4).tolist(),
        },
    }


def chunks_of(model: VideoModel, context: int, seeds: int) -> int:
    """Chunks that `measure` generates."""
    return context // model.frames_per_chunk * (2 + seeds * (len(POLICIES) + 1))


def _window_like(model: VideoModel, chunks: int, progress: Callable[[], object]) -> str:
    """The sliding window that reads as many keys as `mpcache` does at the last chunk."""
    stream = Stream(model, policies.make("mpcache"), PROMPT, decode=False)
    for _ in range(chunks):
        chunk = stream.step()
        progress()
    frames = round(_mean(chunk.kv_tokens_read, chunk) / stream.geometry.tokens_per_frame)
    return f"sliding-window:window_frames={max(frames, model.frames_per_chunk + 2)}"


def _mean(tokens: Mapping[str, int], chunk: Chunk) -> float:
    """Mean of tokens per head group over all heads."""
    heads = {name: sum(map(len, chunk.heads[name])) for name in tokens}
    return sum(tokens[name] * count for name, count in heads.items()) / sum(heads.values())


def _figures(full: Sequence[Sequence[Chunk]], made: Sequence[Sequence[Chunk]]) -> dict[str, Any]:
    """What is measured of one policy, from the chunks of every seed."""
    ratios = [ratio for a, b in zip(full, made, strict=True) for ratio in speed_ratios(a[-LAST:], b[-LAST:])]
    last = made[0][-1]
    by_seed = [_psnr(a, b) for a, b in zip(full, made, strict=True)]
    known = [decibels for decibels in by_seed if decibels is not None]
    seconds = statistics.median(chunk.timings.generate for chunks in made for chunk in chunks[-LAST:])
    return {
        "kv_tokens": _mean(last.kv_tokens, last),
        "kv_tokens_read": _mean(last.kv_tokens_read, last),
        "kv_bytes": max(chunk.kv_bytes for chunk in made[0]),
        "generate_s": seconds,
        "speed_vs_full": statistics.median(ratios),
        "psnr_vs_full": statistics.mean(known) if known else None,
        "psnr_by_seed": by_seed,
        "psnr_error": statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else None,
    }


def _psnr(full: Sequence[Chunk], made: Sequence[Chunk]) -> float | None:
    """PSNR to full of all chunks but the first two, as one video; None where they are equal or have no frames.

    One video, because a window equals full as long as nothing has left it, and equal chunks have no PSNR of their own.
    """
    videos = [(a.video, b.video) for a, b in zip(full, made, strict=True) if a.index > 1]
    pairs = [(a, b) for a, b in videos if a is not None and b is not None]
    return psnr(*map(np.concatenate, zip(*pairs, strict=True))) if pairs else None


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    head = ["policy", "keys held", "keys read", "s / chunk", "choosing s", "vs full", "PSNR to full", "+-"]
    counts = ["comparisons", "multiplications before", "after", "one-hot bits"]
    rows = [
        [
            row["policy"],
            row["kv_tokens"],
            row["kv_tokens_read"],
            row["generate_s"],
            row["choosing_s"] or None,
            f"{row['speed_vs_full']:.2f}x",
            _decimal(row["psnr_vs_full"]),
            _decimal(row["psnr_error"]),
        ]
        for row in found["rows"]
    ]
    secure = [
        [row["policy"], *(f"{count:,}" for count in row["operations"].values())]
        for row in found["rows"]
        if row["operations"]
    ]
    overlap = found["overlap"]
    return [
        f"{found['context']} latent frames of context under full, {found['seeds']} seeds",
        *lines(head, rows),
        "operations of one chunk's choices that secure computation charges for (nothing is computed securely here):",
        *lines(["policy", *counts], secure),
        f"overlap of choices between neighbouring layers and passes, each choosing alone ({overlap['policy']}):",
        "layers  " + "  ".join(f"{a}-{a + 1} {_near(overlap['layers'], a)}" for a in range(len(overlap["layers"]) - 1)),
        "passes  " + "  ".join(f"{overlap['passes'][a]} and next {_near(overlap['steps'], a)}"
                               for a in range(len(overlap["steps"]) - 1)),
    ]  # fmt: skip


def _near(matrix: Sequence[Sequence[float]], at: int) -> str:
    """The entry beside the diagonal."""
    return f"{matrix[at][at + 1]:.2f}"


def _decimal(value: float | None) -> str | None:
    """A number with one decimal."""
    return None if value is None else f"{value:.1f}"


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw PSNR over keys read, and the overlap of choices between layers and between passes.

    Args:
        report: Of `fkv bench --selection`.
        target: The file to write: .png, .svg or .pdf.
    """
    import seaborn as sns

    found = report["selection"]
    overlap = found["overlap"]
    rows = [row for row in found["rows"] if row["psnr_vs_full"] is not None]
    with drawn(report, target, 3, (15, 5), width_ratios=(2, 1, 1)) as (points, layers, steps):
        for row, marker in zip(rows, "osD^v<>phX*Pd8", strict=False):
            points.errorbar(
                row["kv_tokens_read"], row["psnr_vs_full"], row["psnr_error"] or 0, marker=marker, ls="",
                label=row["policy"],
            )  # fmt: skip
        points.set_xlabel(f"keys that a head reads, at {found['context']} frames of context")
        points.set_ylabel("PSNR to full, dB")
        points.legend(fontsize=7)
        for axis, matrix, names, title in (
            (layers, overlap["layers"], list(range(len(overlap["layers"]))), "layers"),
            (steps, overlap["steps"], overlap["passes"], "passes"),
        ):
            sns.heatmap(
                matrix, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", annot_kws={"size": 6}, square=True,
                cbar=False, xticklabels=names, yticklabels=names, ax=axis,
            )  # fmt: skip
            axis.set_title(f"overlap of choices between {title}", fontsize=9)
