"""What a visitor watches in a stream: where each of its heads looks, and where one query patch of one head looks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from fkv.choices import ChoiceProbe, Overlap
from fkv.pages import Geometry, Heads
from fkv.parallel.lockstep import SideBySide
from fkv.policies.kinds import DROPPED, HELD, KEPT
from fkv.probe import Focus, FrameMassProbe, PassMass, ages_of, head_scores
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream
from fkv.studio.media.protocol import GONE, UNIT
from fkv.transformer.probes import Probe, Probes


@dataclass(frozen=True)
class Watch:
    """What a visitor watches.

    Args:
        stream: A stream of the run, by name.
        focus: The query patch that is watched there.
        beside: Whether the same patch is watched in all other streams, too.
    """

    stream: str
    focus: Focus
    beside: bool = False

    @classmethod
    def of(
        cls, stream: Any, layer: Any, head: Any, row: Any, col: Any, geometry: Geometry, beside: Any = False
    ) -> Watch:
        """Read what the page sends. Raises ValueError when the model has no such head or patch."""
        numbers = (layer, head, row, col)
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError(f"layer, head, row and column must be whole numbers, not {', '.join(map(repr, numbers))}")
        focus = Focus(*numbers)
        focus.check(geometry)
        return cls(str(stream), focus, beside is True)

    def probe(self, stream: Stream) -> FrameMassProbe:
        """The probe to step the stream with. It sees the last pass of a chunk, the context pass where there is one."""
        last = f"step {len(stream.model.schedule.sigmas) - 1}" if stream.policy.caches == "per-step" else "context"
        return FrameMassProbe(passes={last}, focus=self.focus)

    def record(
        self, name: str, seen: PassMass, chunk: Chunk, stream: Stream, overlap: Overlap | None = None
    ) -> dict[str, Any]:
        """What the probe saw of a chunk, for the page.

        Args:
            name: Of the stream.
            seen: The record of the probe.
            chunk: The chunk.
            stream: Its stream.
            overlap: How far choices of pages agree, where heads choose.

        Returns:
            `mass` [layers][heads][query frames][key frames]; `scores` [layers][heads], None where they say nothing;
            `kinds`, head group -> what its pages of each key frame are for (`fkv.policies.kinds`); `groups`
            [layers][heads], the group of each head; `maps`, rows of [key frame, mass per patch] of the focus; `static`,
            the static heads of each layer; `threshold`, which gives them, or None; `cost`, see `head_bytes`;
            `overlap`, see `shared_choices`.
        """
        held = seen.mass.sum(-2, keepdims=True) > 0
        maps = [
            [frame, np.nan_to_num(np.rint(patches * UNIT), nan=GONE).astype(int).tolist()]
            for frame, patches in seen.maps.items()
        ]
        return {
            "stream": name,
            "pass": seen.name,
            **_masses(seen.frames, seen.key_frames, np.where(held, seen.mass, GONE / UNIT)),
            "kinds": frame_kinds(chunk, seen.key_frames),
            "groups": head_groups(chunk),
            "scores": live_scores(seen.mass),
            "focus": vars(self.focus),
            "maps": maps,
            "static": stream.roles and stream.roles.static,
            "threshold": stream.roles and stream.roles.threshold,
            "cost": head_bytes(chunk, stream),
            "overlap": overlap and shared_choices(overlap),
        }


def first_focus(geometry: Geometry, roles: HeadRoles | None) -> dict[str, int]:
    """The query patch that the page watches first: mid-frame, of the head with the lowest profile score."""
    scores = None if roles is None else roles.scores
    layer, head = divmod(0 if scores is None else int(np.argmin(scores)), geometry.heads)
    return {"layer": layer, "head": head, "row": geometry.rows // 2, "col": geometry.cols // 2}


def profiled(roles: HeadRoles | None) -> dict[str, Any] | None:
    """The attention in a profile, in the form of a record: frames, key_frames, mass, kinds, groups.

    No policy ran, so the kinds are those that head scores tell apart: sink, anchor and current chunk; all other frames
    are kept. None for roles without attention.
    """
    found = roles and roles.provenance.get("attention")
    if not found:
        return None
    mass = np.array(found["mass"])
    kinds = [KEPT if age == "older" else age for age in ages_of(found["key_frames"], found["frames"][0])]
    groups = [["all"] * mass.shape[1]] * mass.shape[0]
    return _masses(found["frames"], found["key_frames"], mass) | {"kinds": {"all": kinds}, "groups": groups}


def frame_kinds(chunk: Chunk, key_frames: Sequence[int]) -> dict[str, list[str]]:
    """Per head group of a chunk, what its pages of each key frame were for; `dropped` where there were none.

    A frame is `held` where none of its pages were read.
    """
    found = {}
    for name, pages in chunk.pages.items():
        of_page = sorted(zip(pages.frame.tolist(), chunk.kinds[name], strict=True), key=lambda page: page[1] != HELD)
        of_frame = dict(of_page)
        found[name] = [of_frame.get(frame, DROPPED) for frame in key_frames]
    return found


def head_groups(chunk: Chunk) -> list[list[str]]:
    """The group of every head while the chunk attended, [layers][heads]."""
    by_layer = zip(*chunk.heads.values(), strict=True)
    placed = [
        {head: name for name, heads in zip(chunk.heads, layer, strict=True) for head in heads} for layer in by_layer
    ]
    return [[layer[head] for head in sorted(layer)] for layer in placed]


def _masses(frames: Sequence[int], key_frames: Sequence[int], mass: np.ndarray) -> dict[str, Any]:
    units = np.rint(mass * UNIT).astype(int).tolist()
    return {
        "frames": list(frames),
        "key_frames": list(key_frames),
        "mass": units,
    }


@dataclass(frozen=True)
class _Look:
    """What is watched in one stream while its next chunk is generated."""

    watch: Watch
    masses: FrameMassProbe
    choices: ChoiceProbe | None

    @classmethod
    def into(cls, stream: Stream, watch: Watch) -> _Look:
        return cls(watch, watch.probe(stream), ChoiceProbe() if stream.policy.watches_attention else None)

    @property
    def probe(self) -> Probe:
        return Probes([self.masses, self.choices]) if self.choices else self.masses

    def facts(self, name: str, chunk: Chunk, stream: Stream) -> dict[str, Any]:
        overlap = self.choices.overlap() if self.choices else None
        key = "heads" if name == self.watch.stream else "beside"
        return {key: self.watch.record(name, self.masses.take()[0], chunk, stream, overlap)}


class Steps:
    """Steps the streams of a run, as `fkv.parallel.lockstep.SideBySide` does, and looks where the visitor looks."""

    def __init__(self) -> None:
        self._side = SideBySide()
        self._looks: dict[str, _Look] = {}

    @property
    def busy(self) -> Collection[str]:
        """The streams whose next chunk has begun."""
        return self._side.busy

    def step(
        self, streams: Mapping[str, Stream], turn: Iterable[str], watch: Watch | None, seconds: float | None = None
    ) -> tuple[dict[str, Chunk], dict[str, dict[str, Any]]]:
        """Generate chunks, see `SideBySide.step`.

        Args:
            streams: By name.
            turn: The streams whose next chunk shall begin, in this order.
            watch: What to look at meanwhile, if anything.
            seconds: How long to wait at most.

        Returns:
            By stream the chunks that are ready, and for those that were watched `heads`, or `beside` where the visitor
            looks at another one first: what was seen, for the page.
        """
        turn = list(turn)
        if watch is not None and watch.stream in streams:
            watched = [name for name in turn if watch.beside or name == watch.stream]
            self._looks |= {name: _Look.into(streams[name], watch) for name in watched}
        made = self._side.step(streams, turn, {name: look.probe for name, look in self._looks.items()}, seconds)
        looks = {name: self._looks.pop(name) for name in made if name in self._looks}
        return made, {name: look.facts(name, made[name], streams[name]) for name, look in looks.items()}

    def close(self) -> None:
        """Wait for chunks that have begun."""
        self._side.close()


def step(
    streams: Mapping[str, Stream], turn: Iterable[str], watch: Watch | None
) -> tuple[dict[str, Chunk], dict[str, dict[str, Any]]]:
    """Generate the next chunk of every stream in `turn`; the same as `Steps.step`, but for all of them."""
    with closing(Steps()) as steps:
        made, seen = steps.step(streams, turn, watch)
        while steps.busy:
            more, looked = steps.step(streams, (), watch)
            made |= more
            seen |= looked
    return made, seen


def shared_choices(overlap: Overlap) -> dict[str, Any] | None:
    """How far choices agree, for the page: `passes` by name, the matrices `layers` and `steps`, None where unknown.

    None where no head chose anything.
    """
    if np.isnan(overlap.steps).all():
        return None
    matrices = {
        name: [[None if np.isnan(share) else round(float(share), 3) for share in row] for row in matrix]
        for name, matrix in (("layers", overlap.layers), ("steps", overlap.steps))
    }
    return {"passes": list(overlap.passes), **matrices}


def live_scores(mass: np.ndarray, last_k: int = 4, skip: int = 1) -> list[list[float | None]]:
    """Head scores of one chunk.

    Args:
        mass: [layers, heads, query frames, key frames].
        last_k: As in `fkv.probe.head_scores`.
        skip: As in `fkv.probe.head_scores`.

    Returns:
        [layers][heads]; None for heads without a frame between the sink and the last `last_k`, whose score is always 1.
    """
    held = (mass[..., skip:].sum(-2) > 0).sum(-1)
    if mass.shape[-1] <= skip + last_k:
        return [[None] * len(layer) for layer in held]
    scores = head_scores(mass, last_k, skip)
    return [
        [round(float(score), 4) if count > last_k else None for score, count in zip(*layer, strict=True)]
        for layer in zip(scores, held, strict=True)
    ]


def head_bytes(chunk: Chunk, stream: Stream) -> Mapping[str, list[int]] | None:
    """Bytes of K and V of one static and of one dynamic head in each layer, with the pages of their groups in a chunk.

    None under policies that do not use head roles.
    """
    geometry, layers = stream.geometry, stream.geometry.layers
    token = 2 * geometry.batch * geometry.head_dim * stream.caches[0].dtype.itemsize * len(stream.caches)

    def groups_of(static: tuple[int, ...]) -> dict[str, Heads] | None:
        return stream.policy.groups(geometry, HeadRoles(geometry.heads, (static,) * layers))

    static, dynamic = groups_of(tuple(range(geometry.heads))), groups_of(())
    if static is None or dynamic is None or static == dynamic:
        return None
    return {
        role: [
            token * next(chunk.kv_tokens[name] for name, heads in found.items() if heads[layer])
            for layer in range(layers)
        ]
        for role, found in (("static", static), ("dynamic", dynamic))
    }
