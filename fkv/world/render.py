"""Draw the toy world with OpenCV: a panning camera, scenery that leaves and returns, things that pass behind trees.

Whatever a caption leaves open is set by `genes`, numbers in [0, 1): the camera's start, the places of two landmarks,
the place of the things and their size. All motions begin at frame 0, that of the second thing a quarter turn ahead.
Things repeat their motion after `TURN` frames and the camera its pan after `PERIOD`, so a stream of any length shows
only what training has shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from . import HEIGHT, WIDTH
from .captions import Scene, Thing

GENES = 5
PERIOD = 192  # video frames of one pan of the camera, there and back
TURN = 96  # video frames of one period of a motion
PAN = 34.0  # pixels from the middle of the pan to its end
START = 72.0  # pixels along which the camera may start
HORIZON = 58  # row
_SHIFT = 4  # fractional bits of OpenCV's coordinates

Colour = Sequence[int]
Points = np.ndarray | Sequence[tuple[float, float]]

PALETTE = {
    "red": (225, 25, 30),
    "orange": (255, 125, 0),
    "yellow": (255, 225, 0),
    "green": (0, 205, 50),
    "cyan": (0, 215, 225),
    "blue": (20, 60, 240),
    "purple": (140, 20, 205),
    "pink": (255, 70, 175),
}
SKY = {
    "day": ((104, 160, 214), (196, 222, 236)),
    "sunset": ((96, 72, 120), (232, 168, 140)),
    "night": ((16, 20, 44), (50, 58, 92)),
}
LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (0.92, 0.74, 0.70), "night": (0.36, 0.42, 0.56)}
FAR = {
    "hills": (128, 160, 120),
    "sea": (120, 150, 178),
    "desert": (206, 178, 136),
    "city": (122, 126, 142),
    "mountains": (134, 142, 160),
}
NEAR = {
    "hills": (98, 138, 84),
    "sea": (62, 112, 148),
    "desert": (222, 196, 150),
    "city": (104, 104, 110),
    "mountains": (206, 212, 220),
}


def lit(colour: Sequence[float], time: str) -> tuple[int, ...]:
    """A colour under the light of a time of day."""
    return tuple(int(c * light) for c, light in zip(colour, LIGHT[time], strict=True))


def fill(image: np.ndarray, points: Points, colour: Colour) -> None:
    """Fill a polygon, corners as (column, row) in pixels, with sub-pixel edges."""
    cv2.fillPoly(image, [np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)], colour, cv2.LINE_AA, _SHIFT)


def box(image: np.ndarray, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """Fill an upright rectangle with sub-pixel edges."""
    fill(image, [(left, bottom), (left, top), (right, top), (right, bottom)], colour)


def disk(image: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    """Fill a circle with a sub-pixel edge."""
    scale = 1 << _SHIFT
    cv2.circle(image, (round(x * scale), round(y * scale)), round(radius * scale), colour, -1, cv2.LINE_AA, _SHIFT)


def sky(time: str) -> np.ndarray:
    """The empty sky, uint8 [HEIGHT, WIDTH, 3]."""
    top, bottom = (np.array(c, np.float32) for c in SKY[time])
    ramp = np.linspace(0, 1, HORIZON + 12, dtype=np.float32)[:, None]
    rows = np.concatenate([top + (bottom - top) * ramp, np.repeat(bottom[None], HEIGHT - len(ramp), 0)])
    return np.repeat(np.round(rows).astype(np.uint8)[:, None], WIDTH, 1)


def heavens(image: np.ndarray, time: str, pan: float) -> None:
    """Sun, moon and stars, which move at a tenth of the camera's pace."""
    if time == "night":
        for i in range(14):
            disk(image, (i * 47 + 13) % 190 - 15 - 0.1 * pan, 4 + (i * 29) % 40, 0.6 + 0.3 * (i % 2), (190, 196, 214))
    x, y, radius, colour = {
        "day": (126, 16, 9, (255, 246, 214)),
        "sunset": (112, 44, 13, (255, 226, 190)),
        "night": (124, 17, 8, (226, 230, 238)),
    }[time]
    disk(image, x - 0.1 * pan, y, radius, colour)


def _ridge(place: str, x: np.ndarray) -> np.ndarray:
    """Height of the skyline, in rows, at columns `x` of the panorama."""
    if place == "hills":
        return HORIZON - 9 - 7 * np.sin(x * 0.045) - 4 * np.sin(x * 0.11 + 1)
    if place == "desert":
        return HORIZON - 4 - 6 * np.abs(np.sin(x * 0.03)) - 2 * np.sin(x * 0.075)
    if place == "mountains":
        return HORIZON - 4 - 26 * np.abs(((x * 0.021) % 1.0) - 0.5) * 2 * (0.75 + 0.25 * np.sin(x * 0.02))
    return np.full_like(x, HORIZON)


def _visible(spacing: float, first: float, last: float) -> range:
    """The numbers of the repeated parts, `spacing` pixels apart, between two columns."""
    return range(math.floor(first / spacing), math.ceil(last / spacing) + 1)


def _skyline(image: np.ndarray, time: str, offset: float, wide: bool) -> None:
    """The buildings of the city."""
    wall = lit(FAR["city"], time)
    window = (226, 206, 150) if time == "night" else lit((168, 178, 196), time)
    for i in _visible(15, offset - 16, offset + WIDTH) if wide else range(-3, 16):
        left = i * 15 - offset
        height = 14 + (i * 13) % 26
        width = 12 + (i * 5) % 4
        box(image, left, HORIZON - height, left + width, HORIZON, wall)
        for row in range(2, height - 4, 6):
            top, bottom = HORIZON - row - 3, HORIZON - row
            fill(image, [(left + 3, top), (left + 3, bottom), (left + 9, bottom), (left + 9, top)], window)


def far(image: np.ndarray, place: str, time: str, pan: float, wide: bool = False) -> None:
    """The backdrop, which moves at a third of the camera's pace; `wide` ones reach beyond the pan of `render`."""
    if place == "city":
        _skyline(image, time, pan / 3, wide)
        return
    x = np.arange(-2, WIDTH + 4, 3, dtype=np.float64)
    ridge = np.stack([x, _ridge(place, x + pan / 3)], 1)
    fill(image, np.concatenate([ridge, [(WIDTH + 4, HORIZON + 4), (-2, HORIZON + 4)]]), lit(FAR[place], time))


def ground(image: np.ndarray, place: str, time: str, pan: float, frame: float, wide: bool = False) -> None:
    """The foreground's surface: waves at sea, stripes on land, nearer ones faster; `wide` as for `far`."""
    near = np.array(lit(NEAR[place], time), np.float32)
    shade = np.linspace(1.05, 0.8, HEIGHT - HORIZON, dtype=np.float32)[:, None, None]
    image[HORIZON:] = np.clip(near * shade, 0, 255).astype(np.uint8)
    if place == "sea":
        light = lit((150, 190, 210), time)
        for row in range(4):
            y = HORIZON + 5 + row * 9
            moved = pan * (0.5 + 0.15 * row)
            phase = 2 * math.pi * frame / TURN + row
            for i in _visible(48, moved - row * 20 - 26, moved - row * 20 + WIDTH + 8) if wide else range(-1, 5):
                x = i * 48 + row * 20 - moved + 6 * math.sin(phase)
                fill(image, [(x, y), (x + 9, y - 1.4), (x + 18, y), (x + 9, y + 0.8)], light)
        return
    stripe = lit([c * 0.88 for c in NEAR[place]], time)
    for i in _visible(36, pan - 48, pan + 184) if wide else range(-2, 8):
        x = i * 36 - pan
        left, right = 80 + (x + 4 - 80) * 0.72, 80 + (x + 10 - 80) * 0.72
        fill(image, [(x, HEIGHT), (x + 12, HEIGHT), (right, HORIZON + 8), (left, HORIZON + 8)], stripe)


def landmark(image: np.ndarray, place: str, time: str, x: float) -> None:
    """One piece of foreground scenery at column `x`; things pass behind it."""
    base = HEIGHT - 10
    wood = lit((84, 62, 46), time)
    leaf = lit({"hills": (52, 96, 58), "mountains": (44, 82, 74)}.get(place, (70, 104, 72)), time)
    if place == "sea":
        fill(image, [(x - 10, base - 4), (x + 10, base - 4), (x + 6, base + 3), (x - 6, base + 3)], wood)
        fill(image, [(x, base - 32), (x, base - 6), (x + 10, base - 6)], lit((232, 228, 216), time))
    elif place == "desert":
        box(image, x - 3, base - 28, x + 3, base, leaf)
        arm = [(-9, -20), (-9, -12), (0, -10), (0, -14), (-6, -15), (-6, -20)]
        fill(image, [(x + dx, base + dy) for dx, dy in arm], leaf)
    elif place == "city":
        box(image, x - 1.2, base - 36, x + 1.2, base, lit((52, 54, 60), time))
        disk(image, x, base - 37, 3.6, (246, 226, 168) if time == "night" else lit((214, 214, 206), time))
    elif place == "hills":
        box(image, x - 2, base - 14, x + 2, base, wood)
        disk(image, x, base - 22, 11, leaf)
    else:
        box(image, x - 2, base - 14, x + 2, base, wood)
        for level in range(3):
            half = 10 - 2.5 * level
            y = base - 8 - 9 * level
            fill(image, [(x - half, y), (x + half, y), (x, y - 13)], leaf)


def outline(shape: str, radius: float) -> np.ndarray:
    """Corners of a shape around the origin, [N, 2] as (x, y) in pixels."""
    if shape == "ball":
        angle = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        return radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "star":
        angle = np.arange(10) * math.pi / 5 - math.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.22, 0.52) * radius
        return reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "box":
        return radius * 0.9 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    if shape == "triangle":
        return radius * np.array([(0, -1.15), (1.15, 0.85), (-1.15, 0.85)])
    angle = np.linspace(0, 2 * math.pi, 36, endpoint=False)
    x = 16 * np.sin(angle) ** 3
    y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
    return radius / 15 * np.stack([x, y], 1)


def position(thing: Thing, frame: float, gene_place: float, slot: int, count: int) -> tuple[float, float]:
    """Centre of a thing.

    Args:
        thing: Its motion decides the path.
        frame: Video frame on the world's clock.
        gene_place: Gene of the place, in [0, 1).
        slot: Number of the thing; it keeps two things apart.
        count: Number of things.

    Returns:
        Column and row in pixels.
    """
    room = WIDTH / count
    centre = room * (slot + 0.5) + (gene_place - 0.5) * room * 0.25
    swing = (room / 2 - 20) * 0.75
    turn = 2 * math.pi * (frame / TURN + slot / 4)
    if thing.motion == "bouncing":
        return centre, 70 - 44 * abs(math.sin(turn))
    if thing.motion == "drifting":
        return centre + swing * math.sin(turn), 44.0
    if thing.motion == "circling":
        return centre + 18 * math.cos(turn), 44 + 22 * math.sin(turn)
    angle = 1.05 * math.sin(turn)
    reach = min(42.0, swing / math.sin(1.05))
    return centre + reach * math.sin(angle), 20 + 46 * math.cos(angle) ** 2


def draw_thing(image: np.ndarray, thing: Thing, time: str, x: float, y: float, radius: float) -> None:
    """A thing with its outline, its highlight and its shadow on the ground."""
    edge = outline(thing.shape, radius)
    shadow = 0.7 + 0.3 * y / HEIGHT
    cv2.ellipse(
        image,
        (round(x * 16), (HEIGHT - 8) * 16),
        (round(radius * shadow * 14), 36),
        0,
        0,
        360,
        lit([c * 0.25 for c in SKY["day"][0]], time),
        -1,
        cv2.LINE_AA,
        _SHIFT,
    )
    colour = PALETTE[thing.colour]
    fill(image, edge * 1.1 + (x, y), tuple(int(c * 0.35) for c in colour))
    fill(image, edge * 0.94 + (x, y), colour)
    disk(image, x - radius * 0.28, y - radius * 0.28, radius * 0.16, tuple(int(c + (255 - c) * 0.6) for c in colour))


def render(scene: Scene, frames: Sequence[int], genes: Sequence[float]) -> np.ndarray:
    """Draw video frames of a scene.

    Args:
        scene: What to draw.
        frames: Video frames on the world's clock, any integers.
        genes: At least `GENES` numbers in [0, 1).

    Returns:
        RGB frames, uint8 [len(frames), HEIGHT, WIDTH, 3].
    """
    backdrop = sky(scene.time)
    out = np.empty((len(frames), HEIGHT, WIDTH, 3), np.uint8)
    camera, *landmarks, place, size = genes[:GENES]
    radius = 13.5 + 2.5 * size
    for image, frame in zip(out, frames, strict=True):
        image[:] = backdrop
        shift = PAN * math.sin(2 * math.pi * frame / PERIOD)
        pan = shift + START * camera
        heavens(image, scene.time, shift)
        far(image, scene.place, scene.time, pan)
        ground(image, scene.place, scene.time, pan, frame)
        for slot, thing in enumerate(scene.things):
            x, y = position(thing, frame, place, slot, len(scene.things))
            draw_thing(image, thing, scene.time, x, y, radius)
        for centre, gene in zip((30, 130), landmarks, strict=True):
            landmark(image, scene.place, scene.time, centre + 30 * (gene - 0.5) - shift)
    return out
