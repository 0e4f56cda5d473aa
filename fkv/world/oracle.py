"""Read a scene of the toy world from pixels: place, time of day, and each thing's colour, shape and motion.

Nothing here is learnt. The colour is the nearest palette colour, the shape is the outline with the best overlap, and
the motion is the path of `render.position` that fits the track best. Place and time are those of the reference frames
with the most similar rows. Medians and votes over the frames tolerate blur, small colour errors and occlusion.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import cv2
import numpy as np

from . import HEIGHT, WIDTH
from .captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES, Scene, Thing, sample_scene
from .render import GENES, PALETTE, PERIOD, TURN, outline, position, render

COLOUR_RADIUS = 85.0  # largest RGB distance to a palette colour; scenery is at least 100 away from all of them
MIN_PIXELS = 80  # a colour that covers fewer pixels in half of the frames is no thing
MIN_SEPARATION = 14.0  # pixels between the centres of two things
MIN_OVERLAP = 0.6  # intersection over union of a region and an outline
MAX_ROW_DISTANCE = 25.0  # grey levels between rows and those of a reference
MAX_TRACK_DISTANCE = 8.0  # pixels between a track and a path
MIN_MOTION_FRAMES = 24
WINDOW = 80  # video frames
MASK_BORDER = 20  # pixels around a mask in which outlines may reach beyond the picture
WORDS = ("colour", "shape", "motion", "place", "time")


@dataclass(frozen=True)
class Sighting:
    """A moving thing as the oracle sees it.

    Attributes:
        colour: A palette word, or None where the pixels do not tell.
        shape: Likewise.
        motion: Likewise.
        x: Mean column in pixels.
    """

    colour: str | None
    shape: str | None
    motion: str | None
    x: float


@dataclass(frozen=True)
class Reading:
    """The content of a window of frames.

    Attributes:
        place: One of `SCENES`, or None where the pixels do not tell.
        time: One of `TIMES`, likewise.
        things: At most two, from left to right.
    """

    place: str | None
    time: str | None
    things: tuple[Sighting, ...]


def read(frames: np.ndarray, at: Sequence[int] | None = None) -> Reading:
    """Read a window of frames.

    Args:
        frames: RGB, uint8 [T, HEIGHT, WIDTH, 3]. Motion needs at least `MIN_MOTION_FRAMES` frames.
        at: Number of each frame in the video, by default 0 to T - 1.

    Raises:
        ValueError: `frames` has another type or shape, or `at` another length.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or not len(frames) or frames.shape[1:] != (HEIGHT, WIDTH, 3):
        raise ValueError(
            f"the oracle reads uint8 frames [T, {HEIGHT}, {WIDTH}, 3], not {frames.dtype} {list(frames.shape)}"
        )
    numbers = np.arange(len(frames)) if at is None else np.asarray(at)
    if numbers.shape != (len(frames),):
        raise ValueError(f"{len(frames)} frames need as many numbers, not {numbers.size}")
    labels = colour_labels(frames)
    place, time = _backdrop(frames, labels)
    seen = [_sighting(colour, region, numbers) for colour, region in _regions(labels)]
    return Reading(place, time, tuple(sorted(seen, key=lambda thing: thing.x)))


def agreement(scene: Scene, reading: Reading) -> dict[str, float]:
    """Score a reading against a scene.

    Things are matched by colour, then from left to right. A missing thing and an extra thing both count as wrong.

    Returns:
        For each word of `WORDS`, the share of the scene that was read correctly, 0 to 1.
    """
    most = max(len(scene.things), len(reading.things), 1)
    missing = (Sighting(None, None, None, math.nan),) * (most - len(reading.things))
    orders = permutations(reading.things + missing, len(scene.things))
    order = max(orders, key=lambda order: _same_colours(scene, order))
    found = {
        word: sum(getattr(a, word) == getattr(b, word) for a, b in zip(scene.things, order, strict=True)) / most
        for word in WORDS[:3]
    }
    return found | {"place": float(reading.place == scene.place), "time": float(reading.time == scene.time)}


def _same_colours(scene: Scene, sightings: tuple[Sighting, ...]) -> int:
    """How many things have the colour that was seen."""
    return sum(thing.colour == seen.colour for thing, seen in zip(scene.things, sightings, strict=True))


def accuracy(
    samples: int, seed: int, frames: int = WINDOW, through: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, float]:
    """Measure the oracle: mean `agreement` on renders of random scenes, genes and start frames.

    Args:
        samples: Number of renders.
        seed: Chooses them.
        frames: Length of each window; windows below `MIN_MOTION_FRAMES` have no readable motion.
        through: Applied to the frames first (a codec, for example): uint8 [T, H, W, 3] to the same.

    Returns:
        Mean agreement per word of `WORDS`, 0 to 1.

    Raises:
        ValueError: `samples` or `frames` is below 1.
    """
    if samples < 1 or frames < 1:
        raise ValueError(f"samples and frames must be at least 1, they are {samples} and {frames}")
    rng = random.Random(seed)
    total = dict.fromkeys(WORDS, 0.0)
    for _ in range(samples):
        scene = sample_scene(rng, two=0.5)
        start = rng.randrange(10_000)
        video = render(scene, range(start, start + frames), [rng.random() for _ in range(GENES)])
        for word, share in agreement(scene, read(through(video) if through else video)).items():
            total[word] += share / samples
    return total


# Colour.


@lru_cache(maxsize=1)
def _colour_table() -> np.ndarray:
    """Label of every colour at 5 bits per channel: 0 for scenery, else 1 + index into COLOURS. uint8 [32768]."""
    level = np.arange(4, 256, 8, dtype=np.float32)
    grid = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 1, 3)
    distance = np.linalg.norm(grid - np.array([PALETTE[colour] for colour in COLOURS], np.float32), axis=-1)
    return np.where(distance.min(1) < COLOUR_RADIUS, 1 + distance.argmin(1), 0).astype(np.uint8)


def colour_labels(frames: np.ndarray) -> np.ndarray:
    """Palette label of every pixel, see `_colour_table`: uint8 [T, H, W]."""
    red, green, blue = np.moveaxis((frames >> 3).astype(np.uint16), -1, 0)
    return _colour_table()[red << 10 | green << 5 | blue]


def _regions(labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The one or two largest things: colour and mask, uint8 [T, H, W] in {0, 1}.

    A second thing appears together with the first and apart from it, unlike fringes and earlier colours of the first.
    """
    masks = {colour: (labels == 1 + i).astype(np.uint8) for i, colour in enumerate(COLOURS)}
    sizes = {colour: mask.sum((1, 2), dtype=np.int64) for colour, mask in masks.items()}
    medians = {colour: float(np.median(size)) for colour, size in sizes.items()}
    first, *others = sorted(COLOURS, key=lambda colour: medians[colour], reverse=True)

    def is_second(colour: str) -> bool:
        together = (sizes[first] >= MIN_PIXELS) & (sizes[colour] >= MIN_PIXELS)
        if together.mean() < 0.5 or medians[colour] < max(MIN_PIXELS, medians[first] / 4):
            return False
        return bool(np.linalg.norm(_centre(masks[first][together]) - _centre(masks[colour][together])) > MIN_SEPARATION)

    found = [first, *filter(is_second, others)][:2] if medians[first] >= MIN_PIXELS else []
    return [(colour, masks[colour]) for colour in found]


def _centre(masks: np.ndarray) -> np.ndarray:
    """Mean (x, y) of all pixels of the masks, [2]."""
    _, y, x = np.nonzero(masks)
    return np.array([x.mean(), y.mean()])


# Shape and motion.


def close_gaps(mask: np.ndarray) -> np.ndarray:
    """A mask with `MASK_BORDER` pixels of zeros around it and its small gaps closed."""
    wide = cv2.copyMakeBorder(mask, *[MASK_BORDER] * 4, cv2.BORDER_CONSTANT)  # type: ignore[call-overload]
    return cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))


def _sighting(colour: str, masks: np.ndarray, numbers: np.ndarray) -> Sighting:
    """Shape and motion of one thing from its masks, uint8 [T, H, W] in {0, 1}, and the numbers of their frames, [T]."""
    closed = [close_gaps(mask) for mask in masks]
    area = float(np.percentile([mask.sum() for mask in closed], 80))
    shape, overlap = match_outline(closed[:: max(1, len(closed) // 24)], area)
    found = [best_overlap(mask, shape, area) for mask in closed]
    track = np.array([centre if common > 0.4 else (np.nan, np.nan) for common, centre in found])
    return Sighting(
        colour, shape if overlap >= MIN_OVERLAP else None, _motion(track, numbers), float(_centre(masks)[0])
    )


def match_outline(masks: Sequence[np.ndarray], area: float) -> tuple[str, float]:
    """The shape whose outline of `area` pixels overlaps the masks best, and its mean overlap over the better half."""
    overlaps = np.array([[best_overlap(mask, shape, area)[0] for shape in SHAPES] for mask in masks])
    best = overlaps.max(1)
    votes = overlaps[best >= np.median(best)].mean(0)
    return SHAPES[int(votes.argmax())], float(votes.max())


@lru_cache(maxsize=256)
def _template(shape: str, area: int) -> np.ndarray:
    """A filled outline of about `area` pixels, centred, uint8 [odd, odd] in {0, 1}."""
    radius = math.sqrt(area / cv2.contourArea(outline(shape, 1.0).astype(np.float32)))
    half = math.ceil(1.25 * radius)
    image = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    cv2.fillPoly(image, [np.round((outline(shape, radius) + half) * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
    return image


def best_overlap(mask: np.ndarray, shape: str, area: float) -> tuple[float, tuple[int, int]]:
    """The best intersection over union of `mask` with an outline of the given area, and the outline's centre (x, y)."""
    template = _template(shape, int(min(max(area, MIN_PIXELS), 2500)))
    common = cv2.matchTemplate(mask, template, cv2.TM_CCORR)
    _, most, _, (x, y) = cv2.minMaxLoc(common)
    half = len(template) // 2
    return most / (float(mask.sum()) + float(template.sum()) - most), (x + half, y + half)


@lru_cache(maxsize=1)
def _paths() -> tuple[tuple[str, np.ndarray], ...]:
    """One period of every motion, alone and as one of two things: [TURN, 2]."""

    def path(motion: str, count: int) -> np.ndarray:
        thing = Thing(COLOURS[0], SHAPES[0], motion)
        return np.array([position(thing, frame, 0.5, 0, count) for frame in range(TURN)])

    return tuple((motion, path(motion, count)) for motion in MOTIONS for count in (1, 2))


def _motion(track: np.ndarray, numbers: np.ndarray) -> str | None:
    """The motion whose path lies closest to `track` over all phases and places.

    Args:
        track: Places, [T, 2], nan where unseen.
        numbers: Of the track's frames, [T].
    """
    seen = np.flatnonzero(~np.isnan(track[:, 0]))
    if len(seen) < MIN_MOTION_FRAMES:
        return None
    phases = (numbers[seen] + np.arange(TURN)[:, None]) % TURN

    def distance(path: np.ndarray) -> float:
        offset = track[seen] - path[phases]
        offset -= np.median(offset, 1, keepdims=True)
        return float(np.linalg.norm(offset, axis=-1).clip(max=20).mean(1).min())

    far, motion = min((distance(path), motion) for motion, path in _paths())
    return motion if far <= MAX_TRACK_DISTANCE else None


# Place and time.


def _rows(frames: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Median colour of each row without the `hidden` pixels, float [HEIGHT, 3]; a row that is all hidden uses all."""
    hidden = hidden & ~hidden.all((0, 2), keepdims=True)
    pixels = np.where(hidden[..., None], np.nan, frames.astype(np.float32))
    return np.nanmedian(pixels.transpose(1, 0, 2, 3).reshape(HEIGHT, -1, 3), axis=1)


@lru_cache(maxsize=1)
def _references() -> tuple[tuple[tuple[str, str], np.ndarray], ...]:
    """Rows of every place and time without things, over the whole pan of the camera."""
    clock = range(0, PERIOD, 12)
    genes = [random.Random(i).random() for i in range(4)]

    def rows(place: str, time: str) -> np.ndarray:
        frames = np.concatenate([render(Scene(place, time, ()), clock, [gene] * GENES) for gene in genes])
        return _rows(frames, np.zeros(frames.shape[:3], bool))

    return tuple(((place, time), rows(place, time)) for place in SCENES for time in TIMES)


def _backdrop(frames: np.ndarray, labels: np.ndarray) -> tuple[str | None, str | None]:
    """Place and time of day of a window."""
    every = max(1, len(frames) // 8)
    brush = np.ones((9, 9), np.uint8)
    hidden = np.array([cv2.dilate((label > 0).astype(np.uint8), brush) for label in labels[::every, :, ::2]], bool)
    rows = _rows(frames[::every, :, ::2], hidden)
    far, where = min((float(np.abs(rows - reference).mean()), where) for where, reference in _references())
    return where if far <= MAX_ROW_DISTANCE else (None, None)
