"""Profile a model's heads: stream prompts under full attention, score every head, and say how stable the scores are."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fkv import roles as role_files
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.policies import Full
from fkv.probe import FrameMassProbe, PassMass, head_scores, uniform_score
from fkv.roles import HeadRoles, from_scores
from fkv.stream import Chunk, Stream, check_chunks, check_prompt, check_seed

CONTEXT = "context"


@dataclass(frozen=True)
class Stability:
    """How much a head differs from itself and from others.

    The divergence is Jensen-Shannon's in bits, 0 (equal) to 1 (disjoint), between distributions of attention mass over
    key frames, averaged over query frames; chunk and context are the same throughout, so a key frame is an age.

    Args:
        within: Mean over pairs of samples (one pass of one run each) of the same head, [layers, heads].
        between: Mean over the other heads, in all layers, at the same sample, [layers, heads].
        over_runs: Mean of `within` over all heads for pairs that share the pass; None without such pairs.
        over_passes: Mean of `within` over all heads for pairs that share the run; None without such pairs.
        agreement: Mean share of heads that get the profile's role from a single sample.
    """

    within: np.ndarray
    between: np.ndarray
    over_runs: float | None
    over_passes: float | None
    agreement: float

    @property
    def ratio(self) -> float:
        """Mean `within` / mean `between`: well below 1 when roles are a property of the head."""
        return float(self.within.mean() / self.between.mean())


@dataclass(frozen=True)
class Profile:
    """Attention mass of every head in the last chunk of several runs, and the roles that follow.

    Args:
        model: Name of the model.
        checkpoint: That of `fkv.models.identity.Identity`.
        runs: (prompt, seed) of each run.
        passes: Names of the recorded passes in order.
        scored: The passes that the roles follow from.
        frames: Latent frames of the measured chunk.
        key_frames: Latent frames that it attended to.
        mass: float32 [runs, passes, layers, heads, query frames, key frames].
        threshold: Score from which a head is static.
        skip: First key frames left out of the score.
        last_k: Last key frames whose share of the mass is the score.
        date: Day of the profile, YYYY-MM-DD.
    """

    model: str
    checkpoint: str
    runs: tuple[tuple[str, int], ...]
    passes: tuple[str, ...]
    scored: tuple[str, ...]
    frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    mass: np.ndarray
    threshold: float = 0.8
    skip: int = 1
    last_k: int = 4
    date: str = ""

    def __repr__(self) -> str:
        return f"Profile({self.model!r}, {len(self.runs)} runs, {len(self.passes)} passes, {self.roles.summary})"

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of every sample, [runs, passes, layers, heads]."""
        return head_scores(self.mass, self.last_k, self.skip)

    @property
    def head_scores(self) -> np.ndarray:
        """The mean over runs and scored passes, [layers, heads]."""
        return self._scored(self.scores)

    @property
    def attention(self) -> dict[str, Any]:
        """The masses averaged over runs and scored passes, [layers][heads][queries][keys], and the frames."""
        mass = self._scored(self.mass).round(4).astype(np.float64).round(4).tolist()
        return {"frames": list(self.frames), "key_frames": list(self.key_frames), "mass": mass}

    def _scored(self, samples: np.ndarray) -> np.ndarray:
        return samples[:, [self.passes.index(name) for name in self.scored]].mean((0, 1))

    @property
    def mean_masses(self) -> list[PassMass]:
        """The scored passes, averaged over runs."""
        chunk = self.frames[0] // len(self.frames)
        means = ((name, self.mass[:, self.passes.index(name)].mean(0)) for name in self.scored)
        return [PassMass(chunk, name, self.frames, self.key_frames, mean) for name, mean in means]

    @property
    def uniform(self) -> float:
        """The score that uniform attention would have."""
        return uniform_score(len(self.key_frames), self.last_k, self.skip)

    @property
    def roles(self) -> HeadRoles:
        """Static where the score reaches the threshold, with the provenance that a roles file carries."""
        return from_scores(
            self.head_scores,
            self.threshold,
            model=self.model,
            checkpoint=self.checkpoint,
            sink=self.skip,
            last_k=self.last_k,
            prompts=list(dict.fromkeys(prompt for prompt, _ in self.runs)),
            seeds=sorted({seed for _, seed in self.runs}),
            chunks=len(self.key_frames) // len(self.frames),
            passes=list(self.scored),
            uniform_score=round(self.uniform, 4),
            date=self.date,
            source="fkv profile",
            attention=self.attention,
        )

    @cached_property
    def stability(self) -> Stability:
        """Divergence within heads, over runs and passes, against divergence between heads."""
        samples = self.mass.mean(-2, dtype=np.float64)
        runs, passes, layers, heads, _ = samples.shape
        flat = samples.reshape(runs * passes, layers * heads, -1)
        run, step = np.divmod(np.arange(len(flat)), passes)
        pairs = np.stack([divergence(flat, one) for one in flat])
        other = ~np.eye(len(flat), dtype=bool)

        def mean_over(chosen: np.ndarray) -> float | None:
            return float(pairs[chosen].mean()) if chosen.any() else None

        within = pairs[other].mean(0) if other.any() else np.zeros(layers * heads)
        sums = np.mean([[divergence(sample, head).sum() for head in sample] for sample in flat], 0)
        between = sums / max(1, layers * heads - 1)
        static = self.scores >= self.threshold
        return Stability(
            within.reshape(layers, heads),
            between.reshape(layers, heads),
            mean_over(other & (step[:, None] == step)),
            mean_over(other & (run[:, None] == run)),
            float((static == self.roles.is_static()).mean()),
        )

    def report(self) -> dict[str, Any]:
        """Return everything but the masses, ready for JSON."""
        stability = self.stability
        quantiles = np.quantile(self.head_scores, (0, 0.5, 1)).round(4).tolist()
        roles = {name: value for name, value in role_files.to_json(self.roles).items() if name != "attention"}
        return {
            **roles,
            "static_share": round(self.roles.static_share, 4),
            "score_quantiles": dict(zip(("min", "median", "max"), quantiles, strict=True)),
            "stability": {
                "divergence": "Jensen-Shannon, bits, over key frames",
                "within_heads": _rounded(stability.within.mean()),
                "between_heads": _rounded(stability.between.mean()),
                "ratio": _rounded(stability.ratio),
                "over_runs": _rounded(stability.over_runs),
                "over_passes": _rounded(stability.over_passes),
                "agreement": _rounded(stability.agreement),
            },
            "samples": [
                {"prompt": prompt, "seed": seed, "pass": name, "scores": self.scores[i, j].round(4).tolist()}
                for i, (prompt, seed) in enumerate(self.runs)
                for j, name in enumerate(self.passes)
            ],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence in bits, 0 to 1, of distributions on the last axis, normalised first."""
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    return np.clip(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0, 1)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def check_settings(threshold: float, skip: int, last_k: int, queries: int | None) -> None:
    """Check settings of `profile` that do not depend on the model.

    Raises:
        ValueError: A setting is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie above 0 and be at most 1, it is {threshold}")
    if skip < 0 or last_k < 1:
        raise ValueError(f"skip must be at least 0 and last-k at least 1, they are {skip} and {last_k}")
    if queries is not None and queries < 1:
        raise ValueError(f"queries must be at least 1, or left out for all; it is {queries}")


def profile(
    model: VideoModel,
    prompts: Sequence[str],
    seeds: Sequence[int] = (0,),
    chunks: int = 7,
    threshold: float = 0.8,
    skip: int = 1,
    last_k: int = 4,
    passes: Literal["context", "all"] = "context",
    queries: int | None = None,
    progress: Callable[[Chunk], Any] = lambda chunk: None,
) -> Profile:
    """Stream every prompt with every seed under full attention and measure the last chunk.

    Args:
        model: The model whose heads are profiled.
        prompts: Prompts to stream.
        seeds: Seeds to stream each prompt with.
        chunks: Length of each run.
        threshold: Score from which a head is static, above 0, at most 1.
        skip: First key frames left out of the score.
        last_k: Last key frames whose share of the mass is the score.
        passes: Which passes the roles follow from: the context pass on clean latents, or the mean of all. All are
            measured.
        queries: About how many queries per frame to measure; None for all.
        progress: Called with every chunk.

    Raises:
        ValueError: A parameter is out of range, or the context is too short to tell heads apart.
    """
    check_chunks(chunks)
    prompts = [check_prompt(prompt) for prompt in prompts]
    seeds = [check_seed(seed) for seed in seeds]
    if not prompts or not seeds:
        raise ValueError("profiling needs at least one prompt and one seed")
    check_settings(threshold, skip, last_k, queries)
    if passes not in (CONTEXT, "all"):
        raise ValueError(f"passes must be {CONTEXT!r} or 'all', not {passes!r}")
    if uniform_score(chunks * model.frames_per_chunk, last_k, skip) == 1:
        raise ValueError(
            f"{chunks} chunks leave no older frames to score against; use more chunks or a smaller last_k or skip"
        )
    runs = tuple(dict.fromkeys(itertools.product(prompts, seeds)))  # one run twice would look like a stable head
    masses = []
    for prompt, seed in runs:
        probe = FrameMassProbe(queries, passes=None)
        stream = Stream(model, Full(), prompt, seed, decode=False)
        for index in range(chunks):
            progress(stream.step(probe if index == chunks - 1 else None))
        records = probe.take()
        masses.append(np.stack([record.mass for record in records]))
    names = tuple(record.name for record in records)
    return Profile(
        model=model.name,
        checkpoint=identity_of(model).checkpoint,
        runs=runs,
        passes=names,
        scored=names if passes == "all" else (CONTEXT,),
        frames=records[0].frames,
        key_frames=records[0].key_frames,
        mass=np.stack(masses),
        threshold=threshold,
        skip=skip,
        last_k=last_k,
        date=datetime.date.today().isoformat(),
    )
