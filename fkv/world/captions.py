"""Scenes of the toy world and their captions: one grammar, several wordings, and a forgiving reader."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("ball", "star", "box", "triangle", "heart")
MOTIONS = ("bouncing", "drifting", "circling", "swinging")
SCENES = ("hills", "sea", "desert", "city", "mountains")
TIMES = ("day", "sunset", "night")

SYNONYMS = {
    "circle": "ball",
    "sphere": "ball",
    "square": "box",
    "cube": "box",
    "jumping": "bouncing",
    "hopping": "bouncing",
    "floating": "drifting",
    "gliding": "drifting",
    "orbiting": "circling",
    "looping": "circling",
    "swaying": "swinging",
    "ocean": "sea",
    "dunes": "desert",
    "town": "city",
    "skyline": "city",
    "peaks": "mountains",
    "hill": "hills",
    "mountain": "mountains",
    "noon": "day",
    "daytime": "day",
    "dusk": "sunset",
    "evening": "sunset",
    "midnight": "night",
    "moonlight": "night",
    "violet": "purple",
    "turquoise": "cyan",
    "magenta": "pink",
}
GLUE = (
    "a",
    "an",
    "and",
    "the",
    "at",
    "in",
    "over",
    "by",
    "is",
    "of",
    "with",
    "video",
    "scene",
    "under",
    "there",
    "one",
)


@dataclass(frozen=True)
class Thing:
    """One moving object: a colour, a shape and a motion, each a word of the tables above."""

    colour: str
    shape: str
    motion: str


@dataclass(frozen=True)
class Scene:
    """What a caption says: where, when, and one or two moving things."""

    place: str
    time: str
    things: tuple[Thing, ...]


def sample_scene(rng: random.Random, two: float = 0.25) -> Scene:
    """A random scene; with probability `two` it holds two things of different colour and shape."""
    colours, shapes = rng.sample(COLOURS, 2), rng.sample(SHAPES, 2)
    count = 2 if rng.random() < two else 1
    things = tuple(Thing(colours[i], shapes[i], rng.choice(MOTIONS)) for i in range(count))
    return Scene(rng.choice(SCENES), rng.choice(TIMES), things)


def _where(scene: Scene) -> str:
    return f"in the {scene.place}" if scene.place in ("city", "desert") else f"over the {scene.place}"


def _when(scene: Scene) -> str:
    return f"by {scene.time}" if scene.time == "day" else f"at {scene.time}"


WORDINGS = (
    lambda scene, things: f"{things} {_where(scene)} {_when(scene)}",
    lambda scene, things: f"{_when(scene)} {_where(scene)}, {things}",
    lambda scene, things: f"{scene.place} {_when(scene)} with {things}",
    lambda scene, things: f"a video of {things}, {scene.place}, {scene.time}",
)
HELD_OUT_WORDING = lambda scene, things: f"{_where(scene)} there is {things} {_when(scene)}"  # noqa: E731  never trained on


def _thing(thing: Thing, motion_first: bool) -> str:
    if motion_first:
        return f"a {thing.motion} {thing.colour} {thing.shape}"
    article = "an" if thing.colour[0] in "aeiou" else "a"
    return f"{article} {thing.colour} {thing.shape} {thing.motion}"


def caption(scene: Scene, rng: random.Random | None = None, held_out: bool = False) -> str:
    """A caption of `scene`: the plain wording without `rng`, else a random one (or the one kept out of training)."""
    motion_first = rng is not None and rng.random() < 0.3
    things = " and ".join(_thing(thing, motion_first) for thing in scene.things)
    wording = HELD_OUT_WORDING if held_out else WORDINGS[0] if rng is None else rng.choice(WORDINGS)
    return wording(scene, things)


def loosened(text: str, rng: random.Random) -> str:
    """A caption with up to five small words slipped in, most of them in front: who reads it must bind words by nearness, not by place."""
    found = text.split()
    for place in [0] * rng.randrange(5) + [rng.randrange(len(found))] * rng.randrange(2):
        found.insert(place, rng.choice(GLUE))
    return " ".join(found)


def words(text: str) -> list[str]:
    """Lower-case words of a prompt with synonyms replaced by the world's own word."""
    return [SYNONYMS.get(word, word) for word in re.findall(r"[^\W\d_]+", text.lower())]


def known_words() -> tuple[str, ...]:
    """Every word the tiny text encoder has an embedding for, in the order of its table."""
    return COLOURS + SHAPES + MOTIONS + SCENES + TIMES + GLUE


def unknown_words(text: str) -> list[str]:
    """Words of `text` that the model never saw, each once, in order."""
    known = set(known_words())
    return list(dict.fromkeys(word for word in words(text) if word not in known))


def parse(text: str) -> Scene:
    """Read a prompt back into a scene, as the evaluation needs it.

    Raises ValueError when the place, the time or the first thing's colour, shape or motion is missing.
    """
    found = words(text)

    def each(table: tuple[str, ...]) -> list[str]:
        return [word for word in found if word in table]

    place, time, colours, shapes, motions = map(each, (SCENES, TIMES, COLOURS, SHAPES, MOTIONS))
    parts = {"a place": place, "a time of day": time, "a colour": colours, "a shape": shapes, "a motion": motions}
    missing = [name for name, hit in parts.items() if not hit]
    if missing:
        raise ValueError(f"the prompt names no {', no '.join(name.split(' ', 1)[1] for name in missing)}: {text!r}")
    things = tuple(Thing(*each) for each in zip(colours, shapes, motions))
    return Scene(place[0], time[0], things[:2])
