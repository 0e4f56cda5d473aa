"""Read the memory world from pixels: the panel in view, the thing, and the events of a chunk.

Like `oracle`, nothing here is learnt. The hut is found by its picture, which tells the layout of the panel; the sign is
read by colour and outline, lamps by their bright heads in dark rings, the window by its brightness. Readings vote over
the frames of a window. Reversals are those that explain the track of a thing best.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from . import HEIGHT, WIDTH, oracle
from .captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES, Scene, Thing
from .oracle import MASK_BORDER, MIN_OVERLAP, Reading, best_overlap, close_gaps, colour_labels, match_outline
from .panorama import (
    BASE,
    HUT,
    LAMP,
    LAMP_RADIUS,
    LAMP_ROW,
    LAMP_SPACING,
    PASSER_RADIUS,
    SIGN,
    SIGN_ROW,
    draw,
    draw_hut,
    slots,
    tell,
)
from .render import TURN, position
from .shots import CAMERAS, Shot, Subject
from .story import CHUNK, CROSSING, LAYOUTS, STORY_GENES

MIN_THING = 200  # pixels of a thing's colour
MIN_SIGN = 40  # pixels
MIN_CONTRAST = 40.0  # grey levels between a lamp's head and its ring
MAX_HUT = 70.0  # grey levels, root mean square, between a hut and its picture
REACH = 5  # pixels by which the camera may be off
PASSER_ROWS = 30
PASSER_PIXELS = (14, 110)
SPEED = (WIDTH + 16) / (CROSSING - 1)  # pixels per frame of a passer-by


@dataclass(frozen=True)
class PanelReading:
    """A panel as the oracle sees it; None where the pixels do not tell.

    Attributes:
        colour: Of the sign.
        shape: Of the sign.
        lamps: Number of lamps.
        lit: Whether the window is lit.
    """

    colour: str | None = None
    shape: str | None = None
    lamps: int | None = None
    lit: bool | None = None


def read_panel(frames: np.ndarray, time: str) -> PanelReading:
    """Read the panel that fills the picture while the camera rests.

    Args:
        frames: RGB, uint8 [T, HEIGHT, WIDTH, 3].
        time: Time of day, for the colours of the hut.
    """
    chosen = frames[:: max(1, len(frames) // 6)]
    layout = _vote([_layout(frame, time) for frame in chosen])
    if layout is None:
        return PanelReading()
    column = slots(layout)
    colours = [_sign_colour(frame, column[SIGN]) for frame in chosen]
    colour = _vote(colours)
    shapes = [_sign_shape(frame, column[SIGN], colour) for frame in chosen] if colour else [None]
    lamps = _vote([_count_lamps(frame, column[LAMP]) or None for frame in chosen])
    return PanelReading(colour, _vote(shapes), lamps, _vote([_is_lit(frame, time, column[HUT]) for frame in chosen]))


def read(frames: np.ndarray, first: int) -> Reading:
    """Read a window as `oracle.read` does, with motions that may reverse at chunk borders.

    Args:
        frames: RGB, uint8 [T, HEIGHT, WIDTH, 3].
        first: Video frame of the stream with which they begin.
    """
    reading = oracle.read(frames)
    things = tuple(
        replace(thing, motion=read_motion(frames, first, thing.colour, thing.shape))
        if thing.colour and thing.shape
        else thing
        for thing in reading.things
    )
    return replace(reading, things=things)


def read_thing(frames: np.ndarray, sign: str | None = None) -> tuple[str | None, str | None]:
    """Colour and shape of the largest thing; None where there is none.

    Args:
        frames: RGB, uint8 [T, HEIGHT, WIDTH, 3].
        sign: Colour of a sign in the picture; no thing has it.
    """
    labels = colour_labels(frames)
    sizes = {name: float(np.median((labels == 1 + i).sum((1, 2)))) for i, name in enumerate(COLOURS) if name != sign}
    colour = max(sizes, key=lambda name: sizes[name])
    if sizes[colour] < MIN_THING:
        return None, None
    masks = (labels == 1 + COLOURS.index(colour)).astype(np.uint8)
    return colour, _shape([close_gaps(mask) for mask in masks[:: max(1, len(masks) // 12)]])


def read_passer(frames: np.ndarray) -> str | None:
    """Colour of the passer-by that crosses the sky in these frames, RGB uint8 [T, HEIGHT, WIDTH, 3], or None.

    The window should be a chunk or longer, so that the passer-by can be told from resting things by its speed.
    """
    labels = colour_labels(frames)
    found: list[tuple[int, str]] = []
    for i, colour in enumerate(COLOURS):
        tracks = [_small_regions(label == 1 + i) for label in labels]
        for way in (-SPEED, SPEED):
            found.append((_longest_track(tracks, way), colour))
    length, colour = max(found)
    return colour if length >= max(4, round(0.5 * min(len(frames), CHUNK))) else None


def read_reversals(frames: np.ndarray, thing: Thing, slot: int = 0, count: int = 1) -> tuple[bool, ...]:
    """Whether a thing reverses at the beginning of each chunk; the first chunk never does.

    Args:
        frames: RGB, uint8 [chunks * CHUNK, HEIGHT, WIDTH, 3], from a stream's chunk with an even index on.
        thing: Colour, shape and motion of the thing.
        slot: Number of the thing.
        count: Number of things.
    """
    _, ways = _fit(_track(frames, thing), thing, slot, count)
    return tuple(chunk > 0 and ways[chunk] != ways[chunk - 1] for chunk in range(len(ways)))


def read_motion(frames: np.ndarray, first: int, colour: str, shape: str) -> str | None:
    """Motion of a thing that may reverse at chunk borders; None where it is seen for less than two chunks.

    Args:
        frames: RGB, uint8 [T, HEIGHT, WIDTH, 3].
        first: Video frame of the stream with which they begin.
        colour: Colour of the thing.
        shape: Shape of the thing.
    """
    skipped = -first % (2 * CHUNK)
    whole = (len(frames) - skipped) // CHUNK * CHUNK
    if whole < 2 * CHUNK:
        return None
    track = _track(frames[skipped : skipped + whole], Thing(colour, shape, MOTIONS[0]))
    if np.isfinite(track[..., 0]).sum() < 2 * CHUNK:
        return None
    places = ((0, 1), (0, 2), (1, 2))
    fits = [(_fit(track, Thing(colour, shape, motion), *at)[0], motion) for motion in MOTIONS for at in places]
    return min(fits)[1]


def _track(frames: np.ndarray, thing: Thing) -> np.ndarray:
    """Centres of a thing by its colour and shape, [chunks, CHUNK, 2], nan where it is not seen."""
    masks = (colour_labels(frames) == 1 + COLOURS.index(thing.colour)).astype(np.uint8)
    area = float(np.percentile(masks.sum((1, 2)), 80))
    matched = [best_overlap(close_gaps(mask), thing.shape, area) for mask in masks]
    track = np.array([centre if overlap > 0.4 else (np.nan, np.nan) for overlap, centre in matched]) - MASK_BORDER
    return track.reshape(-1, CHUNK, 2)


def _fit(track: np.ndarray, thing: Thing, slot: int, count: int) -> tuple[float, list[int]]:
    """How far a track is from the best path of a thing's motion, and the directions of that path; see `_best_ways`."""
    path = np.array([position(thing, clock, 0.5, slot, count) for clock in range(TURN)])
    place = WIDTH / count * 0.125  # how far its gene can move a thing, see `render.position`
    return min(_best_ways(track - (x, 0.0), path) for x in np.linspace(-place, place, 11))


def _vote(readings: Sequence[Any]) -> Any:
    """The most frequent reading; None where most say nothing."""
    return Counter(readings).most_common(1)[0][0]


def _shape(masks: Sequence[np.ndarray]) -> str | None:
    """The shape of a region, uint8 [h, w] in {0, 1} per frame."""
    shape, overlap = match_outline(masks, float(np.percentile([mask.sum() for mask in masks], 80)))
    return shape if overlap >= MIN_OVERLAP else None


# Panels.


@lru_cache(maxsize=8)
def _hut_picture(time: str) -> tuple[np.ndarray, np.ndarray]:
    """A hut, uint8 [h, w, 3], and its mask without the window, of the same shape."""
    pictures = []
    for background in (0, 255):
        image = np.full((HEIGHT, WIDTH, 3), background, np.uint8)
        draw_hut(image, time, 80, False)
        pictures.append(image[BASE - 30 : BASE, 64:96])
    mask = (np.abs(pictures[0].astype(int) - pictures[1]).max(-1, keepdims=True) == 0).astype(np.uint8)
    mask[15:24, 11:21] = 0
    return pictures[0], np.repeat(mask, 3, 2)


def _find_hut(frame: np.ndarray, time: str, column: int) -> tuple[float, int, int]:
    """How far the best place near a column is from the picture of a hut, in grey levels, and its offset (x, y)."""
    picture, mask = _hut_picture(time)
    left = column - 16 - REACH
    wide = cv2.copyMakeBorder(frame[BASE - 33 : BASE + 3], 0, 0, 16, 16, cv2.BORDER_REPLICATE)
    strip = wide[:, left + 16 : left + 16 + 32 + 2 * REACH]
    far = cv2.matchTemplate(strip, picture, cv2.TM_SQDIFF, mask=mask)
    y, x = np.unravel_index(int(far.argmin()), far.shape)
    return math.sqrt(max(float(far[y, x]), 0.0) / float(mask.sum())), int(x) - REACH, int(y) - 3


def _layout(frame: np.ndarray, time: str) -> int | None:
    """The layout of a panel, by the place of its hut."""
    distances = [_find_hut(frame, time, slots(layout)[HUT])[0] for layout in range(LAYOUTS)]
    best = int(np.argmin(distances))
    return best if distances[best] < MAX_HUT else None


def _is_lit(frame: np.ndarray, time: str, column: int) -> bool:
    """Whether the window of the hut near a column is bright."""
    _, x, y = _find_hut(frame, time, column)
    window = frame[BASE - 12 + y : BASE - 7 + y, column - 2 + x : column + 3 + x]
    return bool(np.median(window) > 140)


def _sign_labels(frame: np.ndarray, column: int) -> np.ndarray:
    """Palette labels around the sign near a column, uint8 [h, w]."""
    left = max(0, column - 16)
    return colour_labels(frame[None, SIGN_ROW - 15 : SIGN_ROW + 16, left : column + 17])[0]


def _sign_colour(frame: np.ndarray, column: int) -> str | None:
    """The colour that fills the middle of the sign."""
    labels = _sign_labels(frame, column)
    middle = labels[8:-8, labels.shape[1] // 2 - 7 : labels.shape[1] // 2 + 8]
    counts = np.bincount(middle.reshape(-1), minlength=1 + len(COLOURS))[1:]
    return COLOURS[int(counts.argmax())] if counts.max() >= MIN_SIGN else None


def _sign_shape(frame: np.ndarray, column: int, colour: str) -> str | None:
    """The outline of the sign."""
    mask = (_sign_labels(frame, column) == 1 + COLOURS.index(colour)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return _shape([cv2.copyMakeBorder((parts == largest).astype(np.uint8), 12, 12, 12, 12, cv2.BORDER_CONSTANT)])


@lru_cache(maxsize=1)
def _lamp_kernel() -> np.ndarray:
    """A filter that answers with the contrast of a lamp's head and its ring, float32 [11, 11]."""
    y, x = np.mgrid[-5:6, -5:6]
    distance = np.hypot(x, y)
    head = distance <= LAMP_RADIUS - 0.6
    ring = (distance >= LAMP_RADIUS + 0.3) & (distance <= LAMP_RADIUS + 1.3)
    return (head / head.sum() - ring / ring.sum()).astype(np.float32)


def _count_lamps(frame: np.ndarray, column: int) -> int:
    """Number of lamps in the row near a column, 0 where there is none."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    wide = cv2.copyMakeBorder(grey, 0, 0, 24, 24, cv2.BORDER_REPLICATE)
    contrast = cv2.filter2D(wide, -1, _lamp_kernel())
    row = contrast[LAMP_ROW - 2 : LAMP_ROW + 3, column + 24 - 20 : column + 24 + 21].max(0)
    peaks = row >= np.maximum(MIN_CONTRAST, 0.45 * row.max())
    found: list[int] = []
    for at in np.argsort(-row):
        if peaks[at] and all(abs(at - other) > LAMP_SPACING // 2 + 1 for other in found):
            found.append(int(at))
    return min(len(found), 4)


# Events.


def _small_regions(mask: np.ndarray) -> list[float]:
    """Columns of regions in the upper rows that are as small as a passer-by."""
    upper = mask[: PASSER_ROWS + 8].astype(np.uint8)
    if not upper.any():
        return []
    _, _, stats, centres = cv2.connectedComponentsWithStats(upper, connectivity=8)
    least, most = PASSER_PIXELS
    return [
        float(x)
        for (x, y), stat in zip(centres[1:], stats[1:], strict=True)
        if least <= stat[cv2.CC_STAT_AREA] <= most
        and y < PASSER_ROWS
        and max(stat[cv2.CC_STAT_WIDTH], stat[cv2.CC_STAT_HEIGHT]) <= 3 * PASSER_RADIUS
    ]


def _longest_track(columns: list[list[float]], speed: float) -> int:
    """In how many frames a region is where something of this speed would be."""
    starts = np.array([x - speed * frame for frame, found in enumerate(columns) for x in found])
    if not len(starts):
        return 0
    frames = np.array([frame for frame, found in enumerate(columns) for _ in found])
    near = np.abs(starts[:, None] - starts[None]) < 4
    return max(len(set(frames[row])) for row in near)


def _best_ways(track: np.ndarray, path: np.ndarray) -> tuple[float, list[int]]:
    """The cheapest sequence of directions over all clocks at the start, multiples of 2 * `CHUNK`.

    Args:
        track: Centres relative to the path's place, [chunks, CHUNK, 2], nan where unseen.
        path: One period of the motion, [TURN, 2].

    Returns:
        The cost, a sum of pixels, and the direction of every chunk, 1 or -1.
    """
    clocks = np.arange(0, TURN, CHUNK)
    at = (clocks[:, None, None] + np.array([1, -1])[:, None] * np.arange(CHUNK)) % TURN  # [clock, way, step]
    far = np.linalg.norm(track[:, None, None] - path[at], axis=-1)
    costs = np.nansum(far.clip(max=30), -1)  # [chunk, clock, way]
    best: tuple[float, list[int]] = (math.inf, [])
    for start in range(0, len(clocks), 2):
        alive = {((start + way) % len(clocks), way): (_cost(costs[0], start, way), [way]) for way in (1, -1)}
        for chunk in range(1, len(track)):
            following: dict[tuple[int, int], tuple[float, list[int]]] = {}
            for (clock, way), (total, ways) in alive.items():
                for new in (way, -way) if clock % 2 else (way,):
                    key = (clock + new) % len(clocks), new
                    candidate = total + _cost(costs[chunk], clock, new), [*ways, new]
                    following[key] = min(candidate, following.get(key, candidate), key=lambda entry: entry[0])
            alive = following
        best = min(best, *alive.values(), key=lambda entry: entry[0])
    return best


def _cost(costs: np.ndarray, clock: int, way: int) -> float:
    """The entry of a table [clock, way]."""
    return float(costs[clock, 0 if way == 1 else 1])


# Its own accuracy.


def accuracy(samples: int, seed: int, through: Callable[[np.ndarray], np.ndarray] | None = None) -> dict[str, float]:
    """Measure this oracle on renders of random stories.

    Args:
        samples: Number of panels; every fourth one adds a stream of eight chunks with events.
        seed: Chooses the stories.
        through: Applied to the frames first (a codec, for example): uint8 [T, H, W, 3] to the same.

    Returns:
        For each kind of reading, the share that is right, 0 to 1.
    """
    rng = random.Random(seed)
    rights: dict[str, list[bool]] = defaultdict(list)
    for sample in range(samples):
        _try_panel(rng, rights, through or _unchanged)
        if sample % 4 == 0:
            _try_events(rng, rights, through or _unchanged)
    return {kind: sum(right) / len(right) for kind, right in rights.items()}


def _unchanged(frames: np.ndarray) -> np.ndarray:
    """The frames."""
    return frames


def _genes(rng: random.Random, chunks: int) -> list[list[float]]:
    """Random genes for a story."""
    return [[rng.random() for _ in range(STORY_GENES)] for _ in range(chunks)]


def _try_panel(rng: random.Random, rights: dict[str, list[bool]], through: Callable[[np.ndarray], np.ndarray]) -> None:
    """Read the panel and the thing of one random chunk."""
    subject = Subject(None, None, rng.choice(MOTIONS)) if rng.random() < 0.8 else None
    shot = Shot(rng.choice(SCENES), rng.choice(TIMES), subject, rng.choice(CAMERAS))
    chunk = tell([shot] * 3, _genes(rng, 3)).chunks[rng.randrange(3)]
    frames = through(draw(chunk.moments))
    panel = chunk.moments[CHUNK // 2].panels[CAMERAS.index(shot.camera) - 1]
    reading = read_panel(frames, shot.time)
    for kind, value in asdict(reading).items():
        rights[kind].append(value == getattr(panel, kind))
    visible = subject is not None and shot.camera == "ahead"
    thing = chunk.moments[0].things[0].thing if subject else None
    expected = (thing.colour, thing.shape) if thing and visible else (None, None)
    rights["thing"].append(read_thing(frames, reading.colour) == expected)


def _try_events(rng: random.Random, rights: dict[str, list[bool]], through: Callable[[np.ndarray], np.ndarray]) -> None:
    """Read the events of one random stream."""
    thing = Thing(rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(MOTIONS))
    scene = Scene(rng.choice(SCENES), rng.choice(TIMES), (thing,))
    story = tell([scene] * 8, _genes(rng, 8))
    frames = through(draw([moment for chunk in story.chunks for moment in chunk.moments]))
    reversals = read_reversals(frames, thing)
    for index, chunk in enumerate(story.chunks):
        rights["reversal"].append(reversals[index] == bool(chunk.events.reversed))
        passer = chunk.moments[CHUNK // 2].passer
        seen = read_passer(frames[index * CHUNK : (index + 1) * CHUNK])
        rights["passer"].append(seen == (passer.colour if passer else None))
