"""Captions of the memory world: a shot says where the camera looks and may leave a thing's colour and shape open.

Shots extend the scenes of `captions`: the camera turns left, ahead or right over a wide panorama, a thing may be called
"something", "a ball" or "the ball from before", it may hide behind a wall or roam out of the picture, and a row of
lamps may be counted. `story` decides what the caption leaves open.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .captions import COLOURS, GLUE, MOTIONS, SCENES, SHAPES, TIMES, known_words, words

CAMERAS = ("left", "ahead", "right")
MEMORY_MOTIONS = ("hiding", "roaming")
COUNTS = ("one", "two", "three", "four")
NEW_WORDS = (
    *CAMERAS,
    *MEMORY_MOTIONS,
    *COUNTS[1:],  # "one" is a filler word of `captions` already
    "camera",
    "looking",
    "something",
    "nothing",
    "thing",
    "from",
    "before",
    "lamp",
    "lamps",
)


@dataclass(frozen=True)
class Subject:
    """The thing of a shot.

    Attributes:
        colour: A word of `COLOURS`; None leaves it open.
        shape: A word of `SHAPES`; None leaves it open.
        motion: A word of `MOTIONS` or `MEMORY_MOTIONS`.
        before: Whether it is the thing that was there before; what is open is then what it was.
    """

    colour: str | None
    shape: str | None
    motion: str
    before: bool = False


@dataclass(frozen=True)
class Shot:
    """The content of a caption of the memory world.

    Attributes:
        place: A word of `SCENES`.
        time: A word of `TIMES`.
        subject: The moving thing, or None for an empty scene.
        camera: A word of `CAMERAS`.
        lamps: Number of lamps in the row ahead, 1 to 4; None leaves it open.
    """

    place: str
    time: str
    subject: Subject | None
    camera: str = "ahead"
    lamps: int | None = None


WORDINGS = (
    "{thing} {where} {when}{lamps}, camera {camera}",
    "camera {camera}, {when} {where}, {thing}{lamps}",
    "{place} {when} with {thing}{lamps}, looking {camera}",
    "a video of {thing}, {place}, {time}{lamps}, camera {camera}",
)
HELD_OUT_WORDING = "{where} there is {thing} {when}{lamps}, looking {camera}"  # never used in training


def memory_words() -> tuple[str, ...]:
    """The vocabulary of a model of the memory world: that of today's world first, in its order."""
    return known_words() + NEW_WORDS


def sample_shot(rng: random.Random) -> Shot:
    """Draw a random shot; nine tenths of the subjects leave something open."""
    motion = rng.choice(MOTIONS + MEMORY_MOTIONS)
    colour = rng.choice(COLOURS) if rng.random() < 0.25 else None
    shape = rng.choice(SHAPES) if rng.random() < 0.3 else None
    subject = Subject(colour, shape, motion) if rng.random() < 0.85 else None
    lamps = rng.randint(1, 4) if rng.random() < 0.25 else None
    return Shot(rng.choice(SCENES), rng.choice(TIMES), subject, rng.choice(CAMERAS), lamps)


def _subject(subject: Subject | None, motion_first: bool) -> str:
    """The phrase for the thing of a shot."""
    if subject is None:
        return "nothing"
    name = subject.shape or "thing"
    if subject.before:
        name = f"the {name} from before"
    elif subject.colour is None and subject.shape is None:
        name = "something"
    else:
        described = " ".join(word for word in (subject.colour, name) if word)
        name = f"{'an' if described[0] in 'aeiou' else 'a'} {described}"
    return f"{subject.motion} {name}" if motion_first else f"{name} {subject.motion}"


def caption(shot: Shot, rng: random.Random | None = None, held_out: bool = False) -> str:
    """Write a caption of a shot.

    Args:
        shot: What the caption says.
        rng: Chooses the wording; without it, the caption uses the first of `WORDINGS`.
        held_out: Use the wording that training never sees.
    """
    motion_first = rng is not None and rng.random() < 0.3
    wording = HELD_OUT_WORDING if held_out else WORDINGS[0] if rng is None else rng.choice(WORDINGS)
    lamps = "" if shot.lamps is None else f", {COUNTS[shot.lamps - 1]} lamp{'s' if shot.lamps > 1 else ''}"
    return wording.format(
        thing=_subject(shot.subject, motion_first),
        where=f"in the {shot.place}" if shot.place in ("city", "desert") else f"over the {shot.place}",
        when=f"by {shot.time}" if shot.time == "day" else f"at {shot.time}",
        place=shot.place,
        time=shot.time,
        lamps=lamps,
        camera=shot.camera,
    )


def parse(text: str) -> Shot:
    """Parse a caption of the memory world.

    Raises:
        ValueError: The place, the time of day or the camera's direction is missing, or a thing has no motion.
    """
    tokens = words(text)

    def first(table: tuple[str, ...]) -> str | None:
        return next((word for word in tokens if word in table), None)

    place = first(SCENES)
    time = first(TIMES)
    camera = first(CAMERAS)
    colour = first(COLOURS)
    shape = first(SHAPES)
    motion = first(MOTIONS + MEMORY_MOTIONS)
    empty = "nothing" in tokens or (motion is None and colour is None and shape is None)
    required = {"place": place, "time of day": time, "camera direction": camera, "motion": motion or empty}
    missing = [name for name, found in required.items() if not found]
    if missing:
        raise ValueError(f"the prompt names no {', no '.join(missing)}: {text!r}")
    assert place and time and camera
    subject = None if empty or motion is None else Subject(colour, shape, motion, "before" in tokens)
    return Shot(place, time, subject, camera, _lamps(tokens))


def _lamps(tokens: list[str]) -> int | None:
    """The number before the word "lamp", filler words between them aside."""
    for name in ("lamps", "lamp"):
        if name in tokens:
            before = [word for word in tokens[: tokens.index(name)] if word in COUNTS or word not in GLUE]
            if before and before[-1] in COUNTS:
                return COUNTS.index(before[-1]) + 1
    return None
