"""Draw the toy world with OpenCV: a panning camera, scenery that leaves and returns, things that pass behind trees.

Everything that a caption leaves open comes from `genes`, numbers in [0, 1): where the camera starts, where the two
landmarks stand, where things have their place and how large they are. All motions begin at frame 0, the second thing's a quarter
turn ahead. Things repeat their motion after `TURN` frames, the camera its pan after `PERIOD`, so a stream of any length
stays inside what the model has seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from . import HEIGHT, WIDTH
from .captions import Scene, Thing

GENES = 5
PERIOD = 192
TURN = 96
PAN = 34.0
START = 72.0
"""Pixels along which the camera may start."""
HORIZON = 58
_SHIFT = 4

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


def _lit(colour: Sequence[float], time: str) -> tuple[int, int, int]:
    return tuple(int(c * light) for c, light in zip(colour, LIGHT[time]))


def _fill(image: np.ndarray, points: np.ndarray, colour: Sequence[int]) -> None:
    cv2.fillPoly(image, [np.round(points * (1 << _SHIFT)).astype(np.int32)], colour, cv2.LINE_AA, _SHIFT)


def _disk(image: np.ndarray, x: float, y: float, radius: float, colour: Sequence[int]) -> None:
    scale = 1 << _SHIFT
    cv2.circle(image, (round(x * scale), round(y * scale)), round(radius * scale), colour, -1, cv2.LINE_AA, _SHIFT)


def _sky(time: str) -> np.ndarray:
    top, bottom = (np.array(c, np.float32) for c in SKY[time])
    ramp = np.linspace(0, 1, HORIZON + 12, dtype=np.float32)[:, None]
    rows = np.concatenate([top + (bottom - top) * ramp, np.repeat(bottom[None], HEIGHT - len(ramp), 0)])
    return np.repeat(np.round(rows).astype(np.uint8)[:, None], WIDTH, 1)


def _heavens(image: np.ndarray, time: str, pan: float) -> None:
    if time == "night":
        for i in range(14):
            _disk(image, (i * 47 + 13) % 190 - 15 - 0.1 * pan, 4 + (i * 29) % 40, 0.6 + 0.3 * (i % 2), (190, 196, 214))
    x, y, radius, colour = {
        "day": (126, 16, 9, (255, 246, 214)),
        "sunset": (112, 44, 13, (255, 226, 190)),
        "night": (124, 17, 8, (226, 230, 238)),
    }[time]
    _disk(image, x - 0.1 * pan, y, radius, colour)


def _ridge(place: str, x: np.ndarray) -> np.ndarray:
    if place == "hills":
        return HORIZON - 9 - 7 * np.sin(x * 0.045) - 4 * np.sin(x * 0.11 + 1)
    if place == "desert":
        return HORIZON - 4 - 6 * np.abs(np.sin(x * 0.03)) - 2 * np.sin(x * 0.075)
    if place == "mountains":
        return HORIZON - 4 - 26 * np.abs(((x * 0.021) % 1.0) - 0.5) * 2 * (0.75 + 0.25 * np.sin(x * 0.02))
    return np.full_like(x, HORIZON)


def _far(image: np.ndarray, place: str, time: str, pan: float) -> None:
    """The backdrop, which moves at a third of the camera's pace."""
    offset = pan / 3
    colour = _lit(FAR[place], time)
    if place == "city":
        for i in range(-3, 16):
            left, width, height = i * 15 - offset, 12 + (i * 5) % 4, 14 + (i * 13) % 26
            _fill(
                image,
                np.array(
                    [
                        (left, HORIZON),
                        (left, HORIZON - height),
                        (left + width, HORIZON - height),
                        (left + width, HORIZON),
                    ]
                ),
                colour,
            )
            window = (226, 206, 150) if time == "night" else _lit((168, 178, 196), time)
            for row in range(2, height - 4, 6):
                _fill(
                    image,
                    np.array(
                        [
                            (left + 3, HORIZON - row - 3),
                            (left + 3, HORIZON - row),
                            (left + 9, HORIZON - row),
                            (left + 9, HORIZON - row - 3),
                        ]
                    ),
                    window,
                )
        return
    x = np.arange(-2, WIDTH + 4, 3, dtype=np.float64)
    outline = np.stack([x, _ridge(place, x + offset)], 1)
    _fill(image, np.concatenate([outline, [(WIDTH + 4, HORIZON + 4), (-2, HORIZON + 4)]]), colour)


def _ground(image: np.ndarray, place: str, time: str, pan: float, frame: int) -> None:
    near = np.array(_lit(NEAR[place], time), np.float32)
    shade = np.linspace(1.05, 0.8, HEIGHT - HORIZON, dtype=np.float32)[:, None, None]
    image[HORIZON:] = np.clip(near * shade, 0, 255).astype(np.uint8)
    if place == "sea":
        light = _lit((150, 190, 210), time)
        for row in range(4):
            y, phase = HORIZON + 5 + row * 9, 2 * math.pi * frame / TURN + row
            for i in range(-1, 5):
                x = i * 48 + row * 20 - (pan * (0.5 + 0.15 * row)) + 6 * math.sin(phase)
                _fill(image, np.array([(x, y), (x + 9, y - 1.4), (x + 18, y), (x + 9, y + 0.8)]), light)
        return
    stripe = _lit([c * 0.88 for c in NEAR[place]], time)
    for i in range(-2, 8):
        x = i * 36 - pan
        _fill(
            image,
            np.array(
                [
                    (x, HEIGHT),
                    (x + 12, HEIGHT),
                    (80 + (x + 10 - 80) * 0.72, HORIZON + 8),
                    (80 + (x + 4 - 80) * 0.72, HORIZON + 8),
                ]
            ),
            stripe,
        )


def _landmark(image: np.ndarray, place: str, time: str, x: float) -> None:
    """One piece of foreground scenery at screen position `x`; things pass behind it."""
    base = HEIGHT - 10
    dark, leaf = (
        _lit((84, 62, 46), time),
        _lit({"hills": (52, 96, 58), "mountains": (44, 82, 74)}.get(place, (70, 104, 72)), time),
    )
    if place == "sea":
        _fill(image, np.array([(x - 10, base - 4), (x + 10, base - 4), (x + 6, base + 3), (x - 6, base + 3)]), dark)
        _fill(image, np.array([(x, base - 32), (x, base - 6), (x + 10, base - 6)]), _lit((232, 228, 216), time))
    elif place == "desert":
        _fill(image, np.array([(x - 3, base), (x - 3, base - 28), (x + 3, base - 28), (x + 3, base)]), leaf)
        _fill(
            image,
            np.array(
                [
                    (x - 9, base - 20),
                    (x - 9, base - 12),
                    (x, base - 10),
                    (x, base - 14),
                    (x - 6, base - 15),
                    (x - 6, base - 20),
                ]
            ),
            leaf,
        )
    elif place == "city":
        _fill(
            image,
            np.array([(x - 1.2, base), (x - 1.2, base - 36), (x + 1.2, base - 36), (x + 1.2, base)]),
            _lit((52, 54, 60), time),
        )
        _disk(image, x, base - 37, 3.6, (246, 226, 168) if time == "night" else _lit((214, 214, 206), time))
    else:
        _fill(image, np.array([(x - 2, base), (x - 2, base - 14), (x + 2, base - 14), (x + 2, base)]), dark)
        if place == "hills":
            _disk(image, x, base - 22, 11, leaf)
        else:
            for level in range(3):
                half, y = 10 - 2.5 * level, base - 8 - 9 * level
                _fill(image, np.array([(x - half, y), (x + half, y), (x, y - 13)]), leaf)


def _outline(shape: str, radius: float) -> np.ndarray:
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
    x, y = (
        16 * np.sin(angle) ** 3,
        -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)),
    )
    return radius / 15 * np.stack([x, y], 1)


def position(thing: Thing, frame: float, gene_place: float, slot: int, count: int) -> tuple[float, float]:
    """Centre (x, y) in pixels of a thing at a video frame; `slot` of `count` keeps two things apart."""
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


def _thing(image: np.ndarray, thing: Thing, time: str, x: float, y: float, radius: float) -> None:
    outline = _outline(thing.shape, radius)
    shadow = 0.7 + 0.3 * y / HEIGHT
    cv2.ellipse(
        image,
        (round(x * 16), (HEIGHT - 8) * 16),
        (round(radius * shadow * 14), 36),
        0,
        0,
        360,
        _lit([c * 0.25 for c in SKY["day"][0]], time),
        -1,
        cv2.LINE_AA,
        _SHIFT,
    )
    colour = PALETTE[thing.colour]
    _fill(image, outline * 1.1 + (x, y), tuple(int(c * 0.35) for c in colour))
    _fill(image, outline * 0.94 + (x, y), colour)
    _disk(image, x - radius * 0.28, y - radius * 0.28, radius * 0.16, tuple(int(c + (255 - c) * 0.6) for c in colour))


def render(scene: Scene, frames: Sequence[int], genes: Sequence[float]) -> np.ndarray:
    """Draw video frames of a scene.

    frames: indices on the world's clock (any integers); genes: at least `GENES` numbers in [0, 1).
    Returns uint8 [len(frames), HEIGHT, WIDTH, 3], RGB.
    """
    sky, out = _sky(scene.time), np.empty((len(frames), HEIGHT, WIDTH, 3), np.uint8)
    camera, *landmarks, place, size = genes[:GENES]
    radius = 13.5 + 2.5 * size
    for image, frame in zip(out, frames):
        image[:] = sky
        shift = PAN * math.sin(2 * math.pi * frame / PERIOD)
        pan = shift + START * camera
        _heavens(image, scene.time, shift)
        _far(image, scene.place, scene.time, pan)
        _ground(image, scene.place, scene.time, pan, frame)
        for slot, thing in enumerate(scene.things):
            x, y = position(thing, frame, place, slot, len(scene.things))
            _thing(image, thing, scene.time, x, y, radius)
        for centre, gene in zip((30, 130), landmarks):
            _landmark(image, scene.place, scene.time, centre + 30 * (gene - 0.5) - shift)
    return out
