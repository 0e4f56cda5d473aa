"""Attention and cache contents drawn onto decoded frames.

A latent frame f is shown by video frames f * n .. f * n + n - 1 (n = 4 for Wan and the tiny model); a token is a patch of
latents, so the token grid divides the picture into equal blocks (16 x 16 pixels with patch 2 and a codec of 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from fkv.analysis.figures.xray import STATES
from fkv.policies.kinds import DROPPED, KINDS

CELL_GAP = 6


def pixel_block(row: int, col: int, grid: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the picture that patch (row, col) of the token grid covers. `grid` and `size` are (rows, columns).

    Raises ValueError when the grid does not divide the picture or has no such patch.
    """
    (rows, cols), (height, width) = grid, size
    if height % rows or width % cols:
        raise ValueError(f"a token grid of {rows} x {cols} does not divide a picture of {height} x {width} pixels")
    if not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(f"there is no patch at row {row}, column {col} of a {rows} x {cols} grid")
    high, wide = height // rows, width // cols
    return slice(row * high, (row + 1) * high), slice(col * wide, (col + 1) * wide)


def frames_of(latent_frame: int, video: np.ndarray, per_latent: int = 4) -> np.ndarray:
    """The video frames that show a latent frame: uint8 [per_latent, H, W, 3] of `video` [T, H, W, 3]."""
    return video[latent_frame * per_latent : (latent_frame + 1) * per_latent]


def _enlarged(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixel_block(0, 0, grid.shape[:2], size)
    return cv2.resize(grid, size[::-1], interpolation=cv2.INTER_NEAREST)


def heat(frame: np.ndarray, mass: np.ndarray, peak: float, query: tuple[int, int] | None = None) -> np.ndarray:
    """Attention of one query drawn onto a frame: cividis, more opaque where there is more mass.

    frame uint8 [H, W, 3]; mass [rows, cols] as in `PassMass.maps`, NaN where nothing is held (drawn grey and hatched);
    `peak` is the mass of the brightest colour; `query` (row, col) is framed. Returns uint8 [H, W, 3].
    """
    size = frame.shape[:2]
    level = np.nan_to_num(np.clip(mass / max(peak, 1e-12), 0, 1)).astype(np.float32)
    colour = cv2.applyColorMap((_enlarged(level, size) * 255).round().astype(np.uint8), cv2.COLORMAP_CIVIDIS)[..., ::-1]
    opacity = (0.35 + 0.5 * _enlarged(level, size))[..., None]
    drawn = (frame * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    held = _enlarged((~np.isnan(mass)).astype(np.uint8), size).astype(bool)
    drawn = np.where(held[..., None], drawn, _hatched(frame))
    if query is not None:
        ys, xs = pixel_block(*query, mass.shape, size)
        cv2.rectangle(drawn, (xs.start, ys.start), (xs.stop - 1, ys.stop - 1), (255, 255, 255), 2)
        cv2.rectangle(drawn, (xs.start, ys.start), (xs.stop - 1, ys.stop - 1), (20, 20, 20), 1)
    return drawn


def _hatched(frame: np.ndarray) -> np.ndarray:
    """A frame that is gone: grey, at 35 %, with diagonal lines."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None] * 0.35 + 70
    y, x = np.indices(frame.shape[:2])
    return np.repeat(np.where(((x + y) % 12 < 2)[..., None], grey + 45, grey), 3, 2).astype(np.uint8)


def tint(frame: np.ndarray, states: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
    """Cache contents drawn onto a frame: each segment in the colour of what it is with its letter, dropped ones hatched.

    states : per segment an index into `figures.xray.STATES`, a column of `page_states`; grid : tokens (rows, columns).
    Raises ValueError when the segments do not divide the grid.
    """
    rows, cols = grid
    if rows * cols % len(states):
        raise ValueError(f"{len(states)} segments do not divide a grid of {rows} x {cols} tokens")
    tokens = np.repeat(np.asarray(states), rows * cols // len(states)).reshape(grid)
    state = _enlarged(tokens.astype(np.int16), frame.shape[:2])
    drawn = frame.copy()
    for index, name in enumerate(STATES):
        at = state == index
        if name == DROPPED:
            drawn[at] = _hatched(frame)[at]
        else:
            colour = np.array([int(KINDS[name].light[i : i + 2], 16) for i in (1, 3, 5)])
            drawn[at] = (frame[at] * 0.62 + colour * 0.38).round().astype(np.uint8)
    starts = np.flatnonzero(np.diff(tokens.reshape(-1), prepend=-1))
    for token in starts[starts % cols == 0].tolist():
        y = token // cols * frame.shape[0] // rows
        if y:
            drawn[y - 1 : y + 1] = 255
        name = STATES[tokens.reshape(-1)[token]]
        letter = "" if name == DROPPED else KINDS[name].letter
        cv2.putText(drawn, letter, (3, y + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def attention_sheet(
    video: np.ndarray,
    maps: Mapping[int, np.ndarray],
    query: tuple[int, int],
    query_frame: int,
    per_latent: int = 4,
    columns: int = 7,
) -> np.ndarray:
    """Where one query looks, over all frames so far: one picture per latent frame, labelled with its number and its mass.

    video uint8 [T, H, W, 3] from the start of the stream; maps as in `PassMass.maps`; frames without a map are hatched;
    all share one scale. Returns uint8 [height, width, 3].
    """
    last, peak = max(maps), max(float(np.nanmax(mass)) for mass in maps.values())
    pictures, labels = [], []
    for latent in range(last + 1):
        frame = frames_of(latent, video, per_latent)[-1]
        mass = maps.get(latent, np.full(next(iter(maps.values())).shape, np.nan))
        pictures.append(heat(frame, mass, peak, query if latent == query_frame else None))
        labels.append(f"{latent}  {np.nansum(mass):.0%}" if latent in maps else f"{latent}  dropped")
    return sheet(pictures, labels, columns)


def sheet(pictures: Sequence[np.ndarray], labels: Sequence[str], columns: int = 7) -> np.ndarray:
    """Pictures of one size in rows, each with a label below: uint8 [height, width, 3]."""
    height, width = pictures[0].shape[:2]
    band = 16
    rows = -(-len(pictures) // columns)
    canvas = np.full(
        (rows * (height + band + CELL_GAP), min(columns, len(pictures)) * (width + CELL_GAP) - CELL_GAP, 3),
        255,
        np.uint8,
    )
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        y, x = (i // columns) * (height + band + CELL_GAP), (i % columns) * (width + CELL_GAP)
        canvas[y : y + height, x : x + width] = picture
        cv2.putText(
            canvas, label, (x + 1, y + height + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (40, 48, 60), 1, cv2.LINE_AA
        )
    return canvas
