"""Three classes of heads by how their attention logits run over the past, for rules such as `pyramid-forcing`.

IF-LAB-PKU/Pyramid-Forcing publishes its classes for Self Forcing, and names what they follow from: the signs of
pre-softmax logits, and how periodic they are. Its thresholds are not published; those here are ours.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from fkv.cache import HeadGroup, KVCache
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.policies import Full
from fkv.policies.pyramid_forcing import NAMES
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream

LEAST_CHUNKS = 8  # of a run, so that a period of 6 frames is seen several times
LEAST_PERIODS = 2  # that a periodic head shows of the past


@dataclass
class LogitProbe:
    """Records the mean logit of every head between a chunk and each frame before it, in the context pass.

    The mean over pairs of tokens of q.k is (mean q).(mean k), so no matrix of scores exists.
    """

    logits: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    _watching: bool = False

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> bool:
        self._watching = name == "context"
        return self._watching

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """Look at the heads of one group in one layer, as in `fkv.transformer.probes.Probe`."""
        if not self._watching:
            return
        pages = cache.reading.pages(group)
        means = keys[0].float().unflatten(1, (len(pages), -1)).mean(2)
        logits = (means @ query[0].float().mean(1)[..., None])[..., 0] * cache.geometry.head_dim**-0.5
        past = np.unique(pages.frame)[: -cache.geometry.frames_per_chunk]
        for head, row in zip(heads, logits.cpu().numpy(), strict=True):
            self.logits[layer, head] = np.array([row[pages.frame == frame].mean() for frame in past])


def periodicity(series: np.ndarray) -> tuple[float, float]:
    """Return how much of a series around its trend is one oscillation, and its period.

    Args:
        series: Logits by frame, float [frames].

    Returns:
        The share of the power in the strongest frequency that shows at least `LEAST_PERIODS` periods and its
        neighbours, 0 to 1, and the period in frames; (0, 0) for a straight line.
    """
    at = np.arange(len(series))
    around = series - np.polyval(np.polyfit(at, series, 1), at)
    power = np.abs(np.fft.rfft(around)) ** 2
    total = power.sum()
    if total <= 1e-12 * max(1.0, float(np.square(series).sum())):
        return 0.0, 0.0
    peak = LEAST_PERIODS + int(power[LEAST_PERIODS:].argmax())
    return float(power[max(1, peak - 1) : peak + 2].sum() / total), len(series) / peak


def classify(logits: np.ndarray, periodic: float = 0.5, positive: float = 0.5) -> np.ndarray:
    """Class every head: periodic ones are `wave`, those with mostly positive logits `anchor`, the others `veil`.

    Args:
        logits: [layers, heads, frames], the mean over runs.
        periodic: Share of the power in one oscillation from which a head is `wave`.
        positive: Share of frames with a positive logit from which a head is `anchor`.

    Returns:
        Indices into `NAMES`, [layers, heads].
    """
    waves = np.apply_along_axis(lambda series: periodicity(series)[0], -1, logits) >= periodic
    return np.where(waves, 0, np.where((logits > 0).mean(-1) >= positive, 1, 2))


def check_length(chunks: int) -> None:
    """Raise ValueError for runs that are too short to see a period."""
    if chunks < LEAST_CHUNKS:
        raise ValueError(f"classes of heads need runs of at least {LEAST_CHUNKS} chunks, not {chunks}")


def head_classes(
    model: VideoModel,
    prompts: Sequence[str],
    seeds: Sequence[int] = (0,),
    chunks: int = 20,
    skip: int = 3,
    progress: Callable[[Chunk], Any] = lambda chunk: None,
) -> dict[str, Any]:
    """Stream every prompt with every seed under full attention, and class heads by the last chunk's logits.

    Args:
        model: What generates.
        prompts: To stream.
        seeds: Of the noise.
        chunks: Length of each run, at least `LEAST_CHUNKS`.
        skip: First frames left out, as the sink draws attention whatever it shows.
        progress: Called with every chunk.

    Returns:
        Class -> heads per layer, and `provenance`: what a roles file carries as `classes`, see `with_classes`.

    Raises:
        ValueError: The runs are too short.
    """
    check_length(chunks)
    geometry = model.geometry
    runs = list(itertools.product(prompts, seeds))
    logits = []
    for prompt, seed in runs:
        probe = LogitProbe()
        stream = Stream(model, Full(), prompt, seed, decode=False)
        for index in range(chunks):
            progress(stream.step(probe if index == chunks - 1 else None))
        logits.append(
            [[probe.logits[layer, head][skip:] for head in range(geometry.heads)] for layer in range(geometry.layers)]
        )
    found = classify(np.mean(logits, 0))
    classes: dict[str, Any] = {
        name: [np.flatnonzero(layer == i).tolist() for layer in found] for i, name in enumerate(NAMES)
    }
    return classes | {
        "provenance": {
            "model": model.name,
            "checkpoint": identity_of(model).checkpoint,
            "prompts": list(dict.fromkeys(prompts)),
            "seeds": sorted(set(seeds)),
            "chunks": chunks,
            "skip": skip,
            "date": datetime.date.today().isoformat(),
            "source": "fkv profile --classes; thresholds of ours, as Pyramid Forcing's are not published",
        }
    }


def with_classes(roles: HeadRoles, classes: dict[str, Any]) -> HeadRoles:
    """The roles with classes in their provenance, so that one file carries both."""
    return HeadRoles(roles.num_heads, roles.static, roles.scores, roles.provenance | {"classes": classes})
