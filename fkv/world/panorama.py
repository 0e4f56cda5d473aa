"""Draw the memory world: the frames of a story, and which object every pixel belongs to.

Both are drawn by the same calls, back to front, so the labels know what hides what. Labels have no soft edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from . import HEIGHT, WIDTH
from .captions import Scene
from .render import (
    PALETTE,
    Points,
    box,
    disk,
    draw_thing,
    far,
    fill,
    ground,
    heavens,
    landmark,
    lit,
    outline,
    sky,
)
from .shots import Shot
from .story import Moment, Panel, Passer, Story

SCENERY, THING, SIGN, LAMP, WINDOW, PASSER, WALL, HUT, TREE = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
)  # labels; THING + 1 is the second
BASE = HEIGHT - 10  # row on which everything stands
SLOTS = (20, 60, 100, 140)  # columns of a panel's four objects
SIGN_RADIUS = 9.5
SIGN_ROW = BASE - 30
LAMP_ROW = BASE - 19
LAMP_SPACING = 9
LAMP_RADIUS = 2.7
PASSER_RADIUS = 4.6
LIT_WINDOW = (255, 242, 178)
DARK_WINDOW = (38, 40, 52)
RING = (40, 40, 46)


def slots(layout: int) -> dict[int, int]:
    """Column of each kind of object in a panel of this layout, by label."""
    order = (SIGN, TREE, HUT, LAMP)
    return {kind: SLOTS[(i + layout) % len(SLOTS)] for i, kind in enumerate(order)}


def lamp_columns(count: int) -> list[float]:
    """Columns of the lamps of a row, from its middle."""
    return [LAMP_SPACING * (i - (count - 1) / 2) for i in range(count)]


def draw(moments: Sequence[Moment]) -> np.ndarray:
    """Draw video frames, RGB uint8 [len(moments), HEIGHT, WIDTH, 3]."""
    out = np.empty((len(moments), HEIGHT, WIDTH, 3), np.uint8)
    backdrops = {time: sky(time) for time in {moment.scene.time for moment in moments}}
    for image, moment in zip(out, moments, strict=True):
        place, time = moment.scene.place, moment.scene.time
        wide = isinstance(moment.scene, Shot)
        image[:] = backdrops[time]
        heavens(image, time, moment.swing)
        far(image, place, time, moment.pan, wide)
        ground(image, place, time, moment.pan, moment.frame, wide)
        _passer(image, moment.passer)
        for placed in moment.things:
            if -2 * moment.radius < placed.x < WIDTH + 2 * moment.radius:
                draw_thing(image, placed.thing, time, placed.x, placed.y, moment.radius)
        if moment.wall is not None:
            _wall(image, time, moment.wall)
        for column in moment.landmarks:
            landmark(image, place, time, column)
        for number, panel in moment.panels.items():
            draw_panel(image, place, time, panel, number * WIDTH - moment.pan)
    return out


def labels(moments: Sequence[Moment]) -> np.ndarray:
    """Which object every pixel belongs to, uint8 [len(moments), HEIGHT, WIDTH]; see the labels above."""
    out = np.zeros((len(moments), HEIGHT, WIDTH), np.uint8)
    for image, moment in zip(out, moments, strict=True):
        if moment.passer:
            _mark_disk(image, moment.passer.x, moment.passer.y, PASSER_RADIUS, PASSER)
        for slot, placed in enumerate(moment.things):
            edge = outline(placed.thing.shape, moment.radius) * 1.1 + (placed.x, placed.y)
            _mark(image, edge, THING + slot)
        if moment.wall is not None:
            _mark(image, _wall_corners(moment.wall), WALL)
        for column in moment.landmarks:
            _mark(
                image, [(column - 9, BASE), (column - 9, BASE - 32), (column + 9, BASE - 32), (column + 9, BASE)], TREE
            )
        for number, panel in moment.panels.items():
            _mark_panel(image, panel, number * WIDTH - moment.pan)
    return out


def draw_panel(image: np.ndarray, place: str, time: str, panel: Panel, left: float) -> None:
    """Draw the objects of a panel whose left edge is at column `left`."""
    column = {kind: left + x for kind, x in slots(panel.layout).items()}
    if -30 < column[TREE] < WIDTH + 30:
        landmark(image, place, time, column[TREE])
    if -30 < column[HUT] < WIDTH + 30:
        draw_hut(image, time, column[HUT], panel.lit)
    if -30 < column[LAMP] < WIDTH + 30:
        for x in lamp_columns(panel.lamps):
            _lamp(image, time, column[LAMP] + x)
    if -30 < column[SIGN] < WIDTH + 30:
        _sign(image, time, panel, column[SIGN])


def _sign(image: np.ndarray, time: str, panel: Panel, x: float) -> None:
    """A coloured shape on a post."""
    box(image, x - 1.2, SIGN_ROW, x + 1.2, BASE, lit((84, 62, 46), time))
    edge = outline(panel.shape, SIGN_RADIUS)
    colour = PALETTE[panel.colour]
    fill(image, edge * 1.18 + (x, SIGN_ROW), (244, 244, 240))
    fill(image, edge + (x, SIGN_ROW), colour)


def draw_hut(image: np.ndarray, time: str, x: float, is_lit: bool) -> None:
    """A hut with a roof and one window."""
    box(image, x - 11, BASE - 17, x + 11, BASE, lit((176, 154, 130), time))
    fill(image, [(x - 15, BASE - 16), (x + 15, BASE - 16), (x, BASE - 29)], lit((120, 76, 66), time))
    box(image, x - 5, BASE - 15, x + 5, BASE - 5, lit((84, 62, 46), time))
    box(image, x - 4, BASE - 14, x + 4, BASE - 6, LIT_WINDOW if is_lit else DARK_WINDOW)


def _lamp(image: np.ndarray, time: str, x: float) -> None:
    """A street lamp: a bright head in a dark ring, on a post."""
    box(image, x - 0.8, LAMP_ROW, x + 0.8, BASE, RING)
    disk(image, x, LAMP_ROW, LAMP_RADIUS + 1.2, RING)
    disk(image, x, LAMP_ROW, LAMP_RADIUS, (255, 246, 206) if time == "night" else (246, 246, 238))


def _passer(image: np.ndarray, passer: Passer | None) -> None:
    """A small balloon."""
    if passer is None:
        return
    box(image, passer.x - 1.5, passer.y + PASSER_RADIUS + 1.5, passer.x + 1.5, passer.y + PASSER_RADIUS + 4, RING)
    disk(image, passer.x, passer.y, PASSER_RADIUS, PALETTE[passer.colour])


def _wall_corners(x: float) -> list[tuple[float, float]]:
    """Corners of the wall behind which a thing hides."""
    return [(x - 22, BASE + 2), (x - 22, 22), (x + 22, 22), (x + 22, BASE + 2)]


def _wall(image: np.ndarray, time: str, x: float) -> None:
    """A wall of planks with a cap."""
    fill(image, _wall_corners(x), lit((150, 128, 108), time))
    for plank in range(-1, 2):
        box(image, x + 11 * plank - 0.6, 24, x + 11 * plank + 0.6, BASE + 2, lit((116, 96, 80), time))
    box(image, x - 24, 20, x + 24, 24, lit((96, 78, 66), time))


def _mark(image: np.ndarray, points: Points, label: int) -> None:
    """Fill a polygon with a label."""
    cv2.fillPoly(image, [np.round(np.asarray(points) * 16).astype(np.int32)], (label,), cv2.LINE_8, 4)


def _mark_disk(image: np.ndarray, x: float, y: float, radius: float, label: int) -> None:
    """Fill a circle with a label."""
    cv2.circle(image, (round(x * 16), round(y * 16)), round(radius * 16), (label,), -1, cv2.LINE_8, 4)


def _mark_panel(image: np.ndarray, panel: Panel, left: float) -> None:
    """Label the objects of a panel."""
    column = {kind: left + x for kind, x in slots(panel.layout).items()}
    x = column[TREE]
    _mark(image, [(x - 9, BASE), (x - 9, BASE - 32), (x + 9, BASE - 32), (x + 9, BASE)], TREE)
    x = column[HUT]
    _mark(image, [(x - 11, BASE), (x - 11, BASE - 17), (x, BASE - 29), (x + 11, BASE - 17), (x + 11, BASE)], HUT)
    _mark(image, [(x - 4, BASE - 6), (x - 4, BASE - 14), (x + 4, BASE - 14), (x + 4, BASE - 6)], WINDOW)
    for dx in lamp_columns(panel.lamps):
        _mark_disk(image, column[LAMP] + dx, LAMP_ROW, LAMP_RADIUS, LAMP)
    _mark(image, outline(panel.shape, SIGN_RADIUS) + (column[SIGN], SIGN_ROW), SIGN)


def tell(scenes: Sequence[Scene | Shot], genes: Sequence[Sequence[float]]) -> Story:
    """The story of a stream: one scene and one row of genes per chunk."""
    story = Story()
    for scene, row in zip(scenes, genes, strict=True):
        story.extend(scene, row)
    return story
