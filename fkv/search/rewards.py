"""Rewards: how good a chunk is, given the chunks before it, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from fkv.comparison import psnr
from fkv.debate.engine import Debate
from fkv.debate.jury import QUESTION, jurors
from fkv.models.base import VideoModel
from fkv.sampler import Noise
from fkv.stream import Chunk, video_of
from fkv.world import FPS, HEIGHT, WIDTH, oracle, shots
from fkv.world.captions import COLOURS, SCENES, SHAPES, TIMES, Scene, words
from fkv.world.captions import parse as scene_of
from fkv.world.panorama import draw, tell
from fkv.world.render import render
from fkv.world.shots import Shot
from fkv.world.story import STORY_GENES
from fkv.world.tensors import genes_of

CLEAN_DB = 40.0  # PSNR from which on a picture is the truth
JURORS = 6
SEEN = 3  # newest chunks of a path that a reward sees
CHANGEABLE = ("colour", "shape", "place", "time")  # what the oracle reads from a single chunk
FORBIDDABLE = COLOURS + SHAPES + SCENES + TIMES


class Past(NamedTuple):
    """What decided a chunk and those before it.

    Args:
        noise: Of the stream.
        prompts: Of its chunks, from the first to the newest.
        events: Whether the model draws the memory world, in which the noise of every chunk decides what happens.
        full: The newest chunk of the same path under the full cache and with all steps; None where nobody compares.
    """

    noise: Noise
    prompts: tuple[str, ...]
    events: bool
    full: Chunk | None = None


class Reward(Protocol):
    """A reward of the newest of up to `SEEN` chunks, decoded, in their order. Returns 0 to 1."""

    def __call__(self, chunks: Sequence[Chunk]) -> float: ...


def continuity(chunks: Sequence[Chunk]) -> float:
    """1 / (1 + change at the chunk's beginning / mean change between its frames).

    It is 1/2 for an even motion and 1 for a border without any change. Changes are mean absolute differences of
    neighbouring frames. The first chunk has no border before it, and 1.
    """
    if len(chunks) < 2:
        return 1.0
    before, video = video_of([chunks[-2]]), video_of([chunks[-1]])
    frames = np.concatenate([before[-1:], video]).astype(np.float32)
    border, *inside = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    mean = float(np.mean(inside))
    total = mean + float(border)
    return mean / total if total else 1.0


def change(chunks: Sequence[Chunk]) -> float:
    """How much of what a new prompt changes is seen: the share of its other words that the oracle reads.

    1 where the prompt has been the same for `SEEN` chunks. The sooner a change is seen, the more chunks have 1.
    """
    new = scene_of(chunks[-1].prompt)
    old = next((scene_of(chunk.prompt) for chunk in reversed(chunks) if chunk.prompt != chunks[-1].prompt), new)
    changed = [word for word in CHANGEABLE if _named(old, word) != _named(new, word)]
    if not changed:
        return 1.0
    read = oracle.agreement(new, oracle.read(video_of([chunks[-1]])))
    return sum(read[word] for word in changed) / len(changed)


def adherence(chunks: Sequence[Chunk]) -> float:
    """The share of the prompt's words that the oracle reads, motions left out."""
    read = oracle.agreement(scene_of(chunks[-1].prompt), oracle.read(video_of([chunks[-1]])))
    return sum(read[word] for word in CHANGEABLE) / len(CHANGEABLE)


@dataclass(frozen=True)
class Rules:
    """1 unless the oracle sees a word that is forbidden, then 0.

    Args:
        forbidden: Words of `FORBIDDABLE`.

    Raises:
        ValueError: There is none, or one that the oracle does not read.
    """

    forbidden: tuple[str, ...]

    def __post_init__(self) -> None:
        if unread := [word for word in self.forbidden if word not in FORBIDDABLE]:
            raise ValueError(f"the oracle does not read {unread[0]!r:.60}; it reads {', '.join(FORBIDDABLE)}")
        if not self.forbidden:
            raise ValueError("rules forbid words, as in rules:red,night")

    def __call__(self, chunks: Sequence[Chunk]) -> float:
        return float(not self.seen_in(video_of([chunks[-1]])))

    def seen_in(self, video: np.ndarray) -> list[str]:
        """The forbidden words that the oracle sees in a chunk's video, uint8 [T, H, W, 3]."""
        reading = oracle.read(video)
        seen = {reading.place, reading.time}
        seen |= {word for thing in reading.things for word in (thing.colour, thing.shape)}
        return [word for word in self.forbidden if word in seen]


@dataclass(frozen=True)
class Wish:
    """A layout that a prompt cannot say: where things are, or how far apart two are.

    Args:
        where: One of `LAYOUTS`.
        second: Of the video, of whose chunk it is wished; None for every chunk.

    Raises:
        ValueError: There is no such layout, or no such second.
    """

    where: str
    second: float | None = None

    def __post_init__(self) -> None:
        if self.where not in LAYOUTS:
            raise ValueError(f"there is no wish {self.where!r:.60}; wish for {', '.join(LAYOUTS)}, as in wish:left@3")
        if self.second is not None and not 0 <= self.second < math.inf:
            raise ValueError(f"a video has no second {self.second:g}")

    @classmethod
    def read(cls, text: str) -> Wish:
        """Read `left` or `left@SECOND`."""
        where, at, second = text.partition("@")
        try:
            return cls(where, float(second) if at else None)
        except ValueError as error:
            raise ValueError(f"{error}" if where not in LAYOUTS else f"{second!r:.60} is no second") from None

    def __call__(self, chunks: Sequence[Chunk]) -> float:
        video = video_of([chunks[-1]])
        begins = chunks[-1].index * len(video) / FPS
        if self.second is not None and not begins <= self.second < begins + len(video) / FPS:
            return 1.0
        places = [min(max(thing.x / WIDTH, 0.0), 1.0) for thing in oracle.read(video).things]
        return LAYOUTS[self.where](places)


def _mean(places: Sequence[float]) -> float:
    return sum(places) / len(places) if places else 0.0


def _between(places: Sequence[float]) -> float | None:
    """How far two things are apart, as a share of the picture; None where two are not seen."""
    return abs(places[0] - places[1]) if len(places) == 2 else None


LAYOUTS: dict[str, Callable[[Sequence[float]], float]] = {
    "left": lambda places: 1 - _mean(places) if places else 0.0,
    "middle": lambda places: 1 - abs(2 * _mean(places) - 1) if places else 0.0,
    "right": _mean,
    "apart": lambda places: _between(places) or 0.0,
    "close": lambda places: 0.0 if (between := _between(places)) is None else 1 - between,
}
"""What is wished, of the places of things across the picture, 0 to 1. Where the things are not seen it is 0."""


def jury(chunks: Sequence[Chunk]) -> float:
    """How much of the prompt the verdict of a jury says that sees the chunks under it, see `fkv.debate.jury`.

    1 while there are too few frames to read a motion from, and 0 without a verdict.
    """
    under = [chunk for chunk in chunks if chunk.prompt == chunks[-1].prompt]
    clip = video_of(under)
    if len(clip) < oracle.MIN_MOTION_FRAMES:
        return 1.0
    verdict = Debate(jurors(clip, JURORS, seed=0), groups=JURORS // 3).hold(QUESTION).verdict
    if verdict is None or not isinstance(verdict.answer, Scene):
        return 0.0
    seen = verdict.answer
    things = tuple(oracle.Sighting(thing.colour, thing.shape, thing.motion, 0.0) for thing in seen.things)
    agreed = oracle.agreement(scene_of(chunks[-1].prompt), oracle.Reading(seen.place, seen.time, things))
    return sum(agreed.values()) / len(agreed)


class Truth:
    """How near a chunk is to the world's own picture of what prompts and noise decide: PSNR over `CLEAN_DB`, at most 1.

    The toy world is drawn by the noise of the first chunk alone, the memory world by that of every chunk up to it.
    """

    def __call__(self, chunks: Sequence[Chunk], past: Past) -> float:
        video = video_of([chunks[-1]])
        last = len(past.prompts) - 1
        shape = chunks[-1].latents.shape
        corners = [past.noise.initial(index, shape)[0, 0, :, 0, 0] for index in range(last + 1 if past.events else 1)]
        if past.events:
            scenes = [shot_or_scene(prompt) for prompt in past.prompts]
            expected = draw(tell(scenes, [genes_of(corner, STORY_GENES) for corner in corners]).chunks[-1].moments)
        else:
            frames = range(last * len(video), (last + 1) * len(video))
            expected = render(scene_of(past.prompts[-1]), frames, genes_of(corners[0]))
        return _clean(psnr(video, expected))


class Faithful:
    """How near a chunk is to that of the same noise and prompts under the full cache and with all steps.

    PSNR over `CLEAN_DB`, at most 1. It tells moves of policy and steps apart, and is 1 for all others.
    """

    def __call__(self, chunks: Sequence[Chunk], past: Past) -> float:
        assert past.full is not None
        return _clean(psnr(video_of([chunks[-1]]), video_of([past.full])))


def _clean(decibels: float | None) -> float:
    """A PSNR as a reward; None, of equal pictures, is 1."""
    return 1.0 if decibels is None else min(1.0, max(0.0, decibels / CLEAN_DB))


def shot_or_scene(prompt: str) -> Shot | Scene:
    """Read a prompt of the memory world, or one of the toy world. Raises ValueError for any other."""
    try:
        return shots.parse(prompt)
    except ValueError:
        return scene_of(prompt)


@dataclass(frozen=True)
class Outside:
    """A function of the user's own: of a chunk's video, uint8 [T, H, W, 3], and its prompt, from 0 to 1.

    Args:
        name: As `module:function`.
        function: The function.
    """

    name: str
    function: Callable[[np.ndarray, str], float]

    @classmethod
    def load(cls, name: str) -> Outside:
        """Import a function. Raises ValueError when it cannot be imported."""
        module, _, function = name.partition(":")
        try:
            return cls(name, getattr(import_module(module), function))
        except Exception as error:  # whatever a module of the user's own may raise
            raise ValueError(f"cannot load the reward {name!r:.80}: {str(error) or type(error).__name__}") from error

    def __call__(self, chunks: Sequence[Chunk]) -> float:
        return self.of(video_of([chunks[-1]]), chunks[-1].prompt)

    def of(self, video: np.ndarray, prompt: str) -> float:
        """What the function says of a video. Raises ValueError when it fails or is out of range."""
        try:
            value = float(self.function(video, prompt))
        except Exception as error:  # whatever a function of the user's own may raise
            raise ValueError(f"the reward {self.name} failed: {str(error) or type(error).__name__}") from error
        if not 0 <= value <= 1:
            raise ValueError(f"the reward {self.name} must be from 0 to 1, not {value}")
        return value


PLAIN: dict[str, Reward] = {"continuity": continuity, "change": change, "adherence": adherence, "jury": jury}
OF_PROMPTS = {"change", "adherence", "jury"}
OF_THE_TOY_WORLD = OF_PROMPTS | {"truth", "rules", "wish"}
OF_THE_PAST: dict[str, type[Truth] | type[Faithful]] = {"truth": Truth, "faithful": Faithful}
NAMES = (*PLAIN, *OF_THE_PAST, "wish:LAYOUT", "rules:WORD,...", "MODULE:FUNCTION")


@dataclass(frozen=True)
class Rewards:
    """Several rewards, whose mean counts.

    Args:
        parts: By name.
    """

    parts: dict[str, Reward | Truth | Faithful]

    def __call__(self, chunks: Sequence[Chunk], past: Past | None = None) -> tuple[float, dict[str, float]]:
        """The reward of the newest chunk, and its parts by name; `truth` and `faithful` need the past."""
        parts = {name: _value(part, chunks[-SEEN:], past) for name, part in self.parts.items()}
        return sum(parts.values()) / len(parts), parts

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The words that its rules forbid."""
        return tuple(word for part in self.parts.values() if isinstance(part, Rules) for word in part.forbidden)

    @property
    def need_full(self) -> bool:
        """Whether one of them compares with the full cache."""
        return "faithful" in self.parts

    @property
    def need_the_oracle(self) -> bool:
        """Whether one of them reads the toy world."""
        return any(name.partition(":")[0] in OF_THE_TOY_WORLD for name in self.parts)


def _value(part: Reward | Truth | Faithful, chunks: Sequence[Chunk], past: Past | None) -> float:
    if not isinstance(part, (Truth, Faithful)):
        return part(chunks)
    assert past is not None
    return part(chunks, past)


def parse(text: str, outside: bool = True) -> Rewards:
    """Read rewards as the command line writes them, joined by `+`, as in `continuity+rules:red,night`.

    Args:
        text: The rewards.
        outside: Whether functions may be named, whose modules are then imported.

    Raises:
        ValueError: There is no such reward, or it cannot be loaded.
    """
    return Rewards(dict(_one(name, outside) for name in text.replace(" ", "").split("+")))


def check_model(rewards: Rewards, model: VideoModel) -> None:
    """Raise ValueError when a model's videos cannot be rewarded."""
    if model.decoder is None:
        raise ValueError("rewards see videos, and there is no decoder; choose one with --decoder")
    if rewards.need_the_oracle and model.latent[1:] != (HEIGHT // 8, WIDTH // 8):
        raise ValueError(
            "only continuity, faithful and MODULE:FUNCTION see other videos than those of the tiny model's world"
        )


def check_seconds(rewards: Rewards, seconds: float) -> None:
    """Raise ValueError when a wish is for a second that a video of this length does not have."""
    for part in rewards.parts.values():
        if isinstance(part, Wish) and part.second is not None and part.second >= seconds:
            raise ValueError(f"{part.where}@{part.second:g} is wished after the end: the video has {seconds:g} seconds")


def check_prompts(rewards: Rewards, prompts: Sequence[str]) -> None:
    """Raise ValueError when a reward compares with prompts, and one of them names no scene."""
    if OF_PROMPTS & set(rewards.parts):
        for prompt in prompts:
            scene_of(prompt)
    if "truth" in rewards.parts:
        for prompt in prompts:
            shot_or_scene(prompt)


def rules(text: str) -> tuple[str, Rules]:
    """Read what rules forbid, as in `red,night`. Returns their name, in the words of the oracle, and the rules."""
    found = tuple(words(text))
    return f"rules:{','.join(found)}", Rules(found)


def _one(name: str, outside: bool) -> tuple[str, Reward | Truth | Faithful]:
    """The name under which a reward is kept, and the reward."""
    kind, colon, rest = name.partition(":")
    if name in OF_THE_PAST:
        return name, OF_THE_PAST[name]()
    if name in PLAIN:
        return name, PLAIN[name]
    if kind == "rules":
        return rules(rest)
    if kind == "wish":
        return name, Wish.read(rest)
    if colon and outside:
        return name, Outside.load(name)
    there_are = NAMES if outside else NAMES[:-1]
    raise ValueError(f"there is no reward {name!r:.80}; there are {', '.join(there_are)}, joined by +")


def _named(scene: Scene, word: str) -> object:
    """What a scene says of a word: its place, its time, or a word of each thing."""
    if word in ("place", "time"):
        return getattr(scene, word)
    return sorted(getattr(thing, word) for thing in scene.things)
