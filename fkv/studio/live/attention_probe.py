"""What a visitor watches inside a stream: where every head of it looks, and where one query patch of one head does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fkv.cache import Geometry
from fkv.parallel.lockstep import step_all
from fkv.probe import Focus, FrameMassProbe, PassMass, ages_of, head_scores
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream

UNIT = 10_000
"""Masses travel as whole numbers of 1 / `UNIT`; `GONE` stands for what the cache holds no more."""
GONE = -1


@dataclass(frozen=True)
class Watch:
    """A stream of a visitor's run, by name, and the query patch they look at."""

    stream: str
    focus: Focus

    @classmethod
    def of(cls, stream: Any, layer: Any, head: Any, row: Any, col: Any, geometry: Geometry) -> Watch:
        """What the page asks for. Raises ValueError with a sentence when the model has no such head or patch."""
        numbers = (layer, head, row, col)
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError(f"layer, head, row and column must be whole numbers, not {', '.join(map(repr, numbers))}")
        focus = Focus(*numbers)
        focus.check(geometry)
        return cls(str(stream), focus)

    def probe(self, stream: Stream) -> FrameMassProbe:
        """What to step the stream with: it sees the last pass of a chunk, the context pass where there is one."""
        last = f"step {len(stream.model.schedule.sigmas) - 1}" if stream.policy.caches == "per-step" else "context"
        return FrameMassProbe(passes={last}, focus=self.focus)

    def record(self, seen: PassMass, chunk: Chunk, stream: Stream) -> dict[str, Any]:
        """What the probe saw of a chunk, for the page.

        mass : [layers][heads][query frames][key frames]. scores : [layers][heads], None where they say nothing.
        ages : of each key frame, as in `fkv.probe.AGES`. maps : rows [key frame, mass per patch] of the focus.
        static : the static heads of each layer. threshold : that gives them, None where none does. cost : see `head_bytes`.
        """
        held = seen.mass.sum(-2, keepdims=True) > 0
        maps = [
            [frame, np.nan_to_num(np.rint(patches * UNIT), nan=GONE).astype(int).tolist()]
            for frame, patches in seen.maps.items()
        ]
        return {
            "stream": self.stream,
            "pass": seen.name,
            **_masses(seen.frames, seen.key_frames, np.where(held, seen.mass, GONE / UNIT)),
            "scores": live_scores(seen.mass),
            "focus": vars(self.focus),
            "maps": maps,
            "static": stream.roles and stream.roles.static,
            "threshold": stream.roles and stream.roles.threshold,
            "cost": head_bytes(chunk, stream),
        }


def profiled(roles: HeadRoles | None) -> dict[str, Any] | None:
    """The attention that a profile holds, as a record's: frames, key_frames, ages, mass. None for roles without any."""
    found = roles and roles.provenance.get("attention")
    return found and _masses(found["frames"], found["key_frames"], np.array(found["mass"]))


def _masses(frames: Sequence[int], key_frames: Sequence[int], mass: np.ndarray) -> dict[str, Any]:
    units = np.rint(mass * UNIT).astype(int).tolist()
    return {
        "frames": list(frames),
        "key_frames": list(key_frames),
        "ages": ages_of(key_frames, frames[0]),
        "mass": units,
    }


def step(
    streams: Mapping[str, Stream], turn: Iterable[str], watch: Watch | None
) -> tuple[dict[str, Chunk], dict[str, Any] | None]:
    """Make the next chunk of every stream, see `fkv.parallel.lockstep.step_all`; with a watch on one of them, also what was seen there."""
    watched = watch.stream if watch and watch.stream in streams else None
    probe = watch.probe(streams[watched]) if watched else None
    made = step_all(streams, turn, {watched: probe} if probe else {})
    return made, watch.record(probe.take()[0], made[watched], streams[watched]) if probe else None


def live_scores(mass: np.ndarray, last_k: int = 4, skip: int = 1) -> list[list[float | None]]:
    """Head scores of one chunk; None for heads that hold no frame beyond the sink and the last `last_k`: theirs is always 1.

    mass: [layers, heads, query frames, key frames].
    """
    held = (mass[..., skip:].sum(-2) > 0).sum(-1)
    if mass.shape[-1] <= skip + last_k:
        return [[None] * len(layer) for layer in held]
    scores = head_scores(mass, last_k, skip)
    return [[round(float(s), 4) if n > last_k else None for s, n in zip(*row)] for row in zip(scores, held)]


def head_bytes(chunk: Chunk, stream: Stream) -> Mapping[str, list[int]] | None:
    """Bytes of K and V of one static and of one dynamic head in each layer, at the pages that each group held in a chunk.

    None where the policy does not go by head roles.
    """
    geometry, layers = stream.geometry, stream.geometry.layers
    token = 2 * geometry.batch * geometry.head_dim * stream.caches[0].dtype.itemsize * len(stream.caches)

    def costs(static: tuple[int, ...]) -> list[int] | None:
        groups = stream.policy.groups(geometry, HeadRoles(geometry.heads, (static,) * layers))
        if groups is None:
            return None
        return [
            token * next(chunk.kv_tokens[name] for name, heads in groups.items() if heads[layer])
            for layer in range(layers)
        ]

    bytes_of = {"static": costs(tuple(range(geometry.heads))), "dynamic": costs(())}
    return None if None in bytes_of.values() else bytes_of
