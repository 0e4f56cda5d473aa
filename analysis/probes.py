"""Probes of recall: scripts of prompts for the memory world in which something leaves the picture and returns.

The camera turns away from a panel and back, a thing leaves and the prompt asks for "the thing from before", or a thing
goes behind a wall or roams out of the picture until noise brings it back. The truth comes from the renderer: a stream's
noise decides what its world holds (`fkv.world.story`), and the oracle reads the same items before they leave and after
they return.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from fkv.sampler import SeededNoise
from fkv.world import FPS
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES
from fkv.world.shots import Shot, Subject
from fkv.world.story import CHUNK, LAMPS, LIGHTS, RETURN, REVERSES, TURN_FRAMES, ChunkTruth, Story
from fkv.world.tensors import noise_of
from fkv.world.witness import read_panel, read_thing

Kind = Literal["panorama", "thing", "hidden", "roaming"]
Reading = dict[str, Any]
HELD_OUT_SEEDS = 2**41  # prompts of probes come from seeds above this, those of training from far below
TURN_CHUNKS = -(-TURN_FRAMES // CHUNK)
MOST_SECONDS = 3600  # for which an item is away
MOST_SEEDS = 1000
OPENING = 2  # chunks without the items, so that no sink keeps a picture of them
REST = 4  # chunks in which the items are read
RETURN_CHUNKS = {"panorama": TURN_CHUNKS, "thing": 1, "hidden": 2, "roaming": 2}  # until the items are read
COMES_BACK = RETURN / 4  # gene
STAYS = 1 - RETURN / 4
CHANCE = {
    "sign colour": 1 / len(COLOURS),
    "sign shape": 1 / len(SHAPES),
    "lamps": 1 / LAMPS,
    "window": 1 / 2,
    "thing colour": 1 / len(COLOURS),
    "thing shape": 1 / len(SHAPES),
}


@dataclass(frozen=True)
class Wandering:
    """How a thing leaves and returns by itself.

    Attributes:
        motion: Its motion.
        in_view: Chunks in which it is in full view, before it leaves.
        leaves: Chunks after which it is out of sight.
        soonest: Chunks after which it can come back.
    """

    motion: str
    in_view: range
    leaves: int
    soonest: int


WANDERING = {
    "hidden": Wandering("hiding", range(OPENING + 1, OPENING + 2), OPENING + 4, 2),
    "roaming": Wandering("roaming", range(OPENING + 1, OPENING + 4), OPENING + 5, 3),
}
"""Kinds of probes with such a thing."""


@dataclass(frozen=True)
class Probe:
    """A script in which something leaves the picture and returns.

    Attributes:
        kind: "panorama": the camera turns away and back. "thing": a thing leaves and the prompt refers back to it.
            "hidden": a thing goes behind a wall and comes out again. "roaming": it leaves the picture and returns.
        prompt: Number of the held-out prompt.
        shots: The scene of every chunk.
        before: Chunks in which the items are read before they leave.
        after: Chunks in which they are read after their return.
        seconds: How long they were out of the picture.
        panel: Number of the panel that is read.
    """

    kind: Kind
    prompt: int
    shots: tuple[Shot, ...]
    before: range
    after: range
    seconds: float
    panel: int = 0

    @property
    def returns(self) -> int:
        """The chunk that brings the items back into the picture."""
        return self.after.start - RETURN_CHUNKS[self.kind]

    def genes(self, chunk: int) -> dict[int, float]:
        """The genes of a chunk that noise does not decide: when a thing comes back, and that no window changes."""
        if self.kind in WANDERING:
            return {REVERSES[0]: COMES_BACK if chunk == self.returns - 1 else STAYS}
        return {LIGHTS: STAYS} if self.kind == "panorama" else {}


def make_probe(kind: Kind, prompt: int, seconds: float) -> Probe:
    """Make a probe.

    Args:
        kind: See `Probe`.
        prompt: Number of the held-out prompt.
        seconds: How long the items are out of the picture, rounded to chunks; a thing that wanders needs
            `Wandering.soonest`.

    Raises:
        ValueError: `seconds` is not from 1 to `MOST_SECONDS`.
    """
    if not 1 <= seconds <= MOST_SECONDS:
        raise ValueError(f"an item must be away for 1 to {MOST_SECONDS} seconds, not {seconds:g}")
    rng = random.Random(HELD_OUT_SEEDS + prompt)
    place = rng.choice(SCENES)
    time = rng.choice(TIMES)
    motion = rng.choice(MOTIONS)
    wandering = WANDERING.get(kind)
    away = max(round(seconds * FPS / CHUNK), wandering.soonest if wandering else 0)
    seconds = away * CHUNK / FPS
    subject = Subject(None, None, motion)
    ahead = Shot(place, time, subject)
    if kind == "thing":
        gone = Shot(place, time, None)
        again = Shot(place, time, Subject(None, None, motion, before=True))
        shots = [gone] * OPENING + [ahead] * (1 + REST) + [gone] * (1 + away) + [again] * (1 + REST)
        return Probe(kind, prompt, tuple(shots), range(OPENING + 1, OPENING + 1 + REST), _last(shots), seconds)
    camera, panel = (("left", -1), ("right", 1))[prompt % 2]
    if wandering:
        moving = Shot(place, time, Subject(None, None, wandering.motion))
        watched = wandering.leaves - OPENING + away + RETURN_CHUNKS[kind] + 2
        shots = [replace(moving, camera=camera)] * OPENING + [moving] * watched
        return Probe(kind, prompt, tuple(shots), wandering.in_view, range(len(shots) - 2, len(shots)), seconds)
    aside = replace(ahead, camera=camera)
    turned = [aside] * (TURN_CHUNKS + REST)
    shots = [ahead] * OPENING + turned + [ahead] * (TURN_CHUNKS + away) + turned
    before = range(OPENING + TURN_CHUNKS, OPENING + TURN_CHUNKS + REST)
    return Probe(kind, prompt, tuple(shots), before, _last(shots), seconds, panel)


def _last(shots: Sequence[Shot]) -> range:
    """The last chunks, in which the camera rests."""
    return range(len(shots) - REST, len(shots))


def truth_of(probe: Probe, genes: Sequence[Sequence[float]]) -> Reading:
    """What the probe's items are in the world that these genes decide, one row of genes per chunk."""
    story = Story()
    for shot, row in zip(probe.shots, genes, strict=True):
        story.extend(shot, row)
    return _items_of(probe, story.chunks[probe.before[-1]])


def _items_of(probe: Probe, chunk: ChunkTruth) -> Reading:
    """The probe's items in one chunk of a story."""
    moment = chunk.moments[-1]
    if probe.kind != "panorama":
        thing = moment.things[0].thing
        return {"thing colour": thing.colour, "thing shape": thing.shape}
    panel = moment.panels[probe.panel]
    return {"sign colour": panel.colour, "sign shape": panel.shape, "lamps": panel.lamps, "window": panel.lit}


def read_items(probe: Probe, frames: np.ndarray) -> Reading:
    """Read the probe's items, with the names of `CHANCE`, from frames uint8 [T, H, W, 3] in which the camera rests."""
    panel = read_panel(frames, probe.shots[0].time)
    if probe.kind != "panorama":
        colour, shape = read_thing(frames, panel.colour)
        return {"thing colour": colour, "thing shape": shape}
    return {"sign colour": panel.colour, "sign shape": panel.shape, "lamps": panel.lamps, "window": panel.lit}


def score(probe: Probe, video: np.ndarray, truth: Reading) -> list[Reading]:
    """Score a stream of a probe, one record per item.

    Args:
        probe: The script.
        video: Frames of all its chunks, uint8 [T, H, W, 3].
        truth: What the items are, see `truth_of`.

    Returns:
        Records with `item`, `chance`, `shown` (it was right before it left), `recalled` (it is right after its return)
        and `consistent` (it is after its return what it was before, right or wrong).
    """
    before = read_items(probe, _chunks(video, probe.before))
    after = read_items(probe, _chunks(video, probe.after))
    return [
        {
            "item": item,
            "chance": CHANCE[item],
            "shown": before[item] == value,
            "recalled": after[item] == value,
            "consistent": before[item] is not None and before[item] == after[item],
        }
        for item, value in truth.items()
    ]


def _chunks(video: np.ndarray, chunks: range) -> np.ndarray:
    """The frames of some chunks."""
    return video[chunks.start * CHUNK : chunks.stop * CHUNK]


@dataclass(frozen=True)
class ProbeNoise:
    """The noise of a prompt and a seed, but for the genes that the probe sets.

    Every prompt has noise of its own: its items would otherwise be those of all prompts with that seed.
    """

    probe: Probe
    seed: int

    @property
    def _seeded(self) -> SeededNoise:
        return SeededNoise(MOST_SEEDS * self.probe.prompt + self.seed)

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        noise = self._seeded.initial(chunk, shape)
        for number, gene in self.probe.genes(chunk).items():
            noise[:, 0, number, 0, 0] = noise_of(gene)
        return noise

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self._seeded.between(chunk, step, shape)
