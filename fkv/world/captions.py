"""Scenes of the toy world and their captions: one grammar, several wordings, and a tolerant parser."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
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
    """The content of a caption: a place, a time of day, and up to two moving things."""

    place: str
    time: str
    things: tuple[Thing, ...]


def sample_scene(rng: random.Random, two: float = 0.25) -> Scene:
    """Draw a random scene.

    Args:
        rng: Source of randomness.
        two: Probability of two things, which then differ in colour and shape.
    """
    colours = rng.sample(COLOURS, 2)
    shapes = rng.sample(SHAPES, 2)
    count = 2 if rng.random() < two else 1
    things = tuple(Thing(colours[i], shapes[i], rng.choice(MOTIONS)) for i in range(count))
    return Scene(rng.choice(SCENES), rng.choice(TIMES), things)


def _where(scene: Scene) -> str:
    """The phrase for the place."""
    return f"in the {scene.place}" if scene.place in ("city", "desert") else f"over the {scene.place}"


def _when(scene: Scene) -> str:
    """The phrase for the time of day."""
    return f"by {scene.time}" if scene.time == "day" else f"at {scene.time}"


WORDINGS = (
    "{things} {where} {when}",
    "{when} {where}, {things}",
    "{place} {when} with {things}",
    "a video of {things}, {place}, {time}",
)
HELD_OUT_WORDING = "{where} there is {things} {when}"  # never used in training


def _thing(thing: Thing, motion_first: bool) -> str:
    """The phrase for one thing."""
    if motion_first:
        return f"a {thing.motion} {thing.colour} {thing.shape}"
    article = "an" if thing.colour[0] in "aeiou" else "a"
    return f"{article} {thing.colour} {thing.shape} {thing.motion}"


def caption(scene: Scene, rng: random.Random | None = None, held_out: bool = False) -> str:
    """Write a caption of a scene.

    Args:
        scene: What the caption says.
        rng: Chooses the wording; without it, the caption uses the first of `WORDINGS`.
        held_out: Use the wording that training never sees.
    """
    motion_first = rng is not None and rng.random() < 0.3
    things = " and ".join(_thing(thing, motion_first) for thing in scene.things)
    wording = HELD_OUT_WORDING if held_out else WORDINGS[0] if rng is None else rng.choice(WORDINGS)
    return wording.format(things=things, where=_where(scene), when=_when(scene), place=scene.place, time=scene.time)


def loosened(text: str, rng: random.Random) -> str:
    """Insert up to five filler words, most of them in front.

    A model trained on these captions binds a colour to a shape by nearness, not by where the words stand.
    """
    tokens = text.split()
    for place in [0] * rng.randrange(5) + [rng.randrange(len(tokens))] * rng.randrange(2):
        tokens.insert(place, rng.choice(GLUE))
    return " ".join(tokens)


PARTS = {"place": SCENES, "time of day": TIMES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS}


def words(text: str) -> list[str]:
    """Split a prompt into lower-case words and replace synonyms by the word that the model knows."""
    return [SYNONYMS.get(word, word) for word in re.findall(r"[^\W\d_]+", text.lower())]


def known_words() -> tuple[str, ...]:
    """Every word of the tiny text encoder's vocabulary, in the order of its embedding table."""
    return COLOURS + SHAPES + MOTIONS + SCENES + TIMES + GLUE


def unknown_words(text: str, vocabulary: Iterable[str] | None = None) -> list[str]:
    """The words of `text` outside a vocabulary, by default that of `known_words`, each once, in order."""
    known = set(known_words() if vocabulary is None else vocabulary)
    return list(dict.fromkeys(word for word in words(text) if word not in known))


def missing_parts(text: str) -> list[str]:
    """What of place, time of day, colour, shape and motion a prompt does not name."""
    named = set(words(text))
    return [part for part, table in PARTS.items() if not named & set(table)]


def parse(text: str) -> Scene:
    """Parse a prompt into a scene.

    Raises:
        ValueError: The place, the time of day, or the first thing's colour, shape or motion is missing.
    """
    if missing := missing_parts(text):
        raise ValueError(f"the prompt names no {', no '.join(missing)}: {text!r}")
    place, time, colours, shapes, motions = (
        [word for word in words(text) if word in table] for table in PARTS.values()
    )
    things = tuple(Thing(*thing) for thing in zip(colours, shapes, motions, strict=False))  # the prompt may be partial
    return Scene(place[0], time[0], things[:2])
