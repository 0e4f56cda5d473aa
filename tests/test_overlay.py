"""Attention lands on the picture where it belongs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fkv.analysis.figures.xray import STATES
from fkv.analysis.overlay import attention_sheet, frames_of, heat, pixel_block, sheet, tint
from fkv.policies.kinds import KINDS

GRID, SIZE = (6, 10), (96, 160)


def brightest() -> np.ndarray:
    """The top colour of cividis, RGB."""
    return cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_CIVIDIS)[0, 0, ::-1]


def test_a_patch_is_sixteen_pixels_square():
    assert pixel_block(0, 0, GRID, SIZE) == (slice(0, 16), slice(0, 16))
    assert pixel_block(5, 9, GRID, SIZE) == (slice(80, 96), slice(144, 160))
    with pytest.raises(ValueError, match="no patch at row 6"):
        pixel_block(6, 0, GRID, SIZE)
    with pytest.raises(ValueError, match="does not divide"):
        pixel_block(0, 0, GRID, (100, 160))


@pytest.mark.parametrize("row, col", [(0, 0), (2, 7), (5, 9)])
def test_a_peak_lands_on_its_patch_and_nowhere_else(row, col):
    mass = np.zeros(GRID, np.float32)
    mass[row, col] = 0.4
    frame = np.full((*SIZE, 3), 30, np.uint8)
    drawn = heat(frame, mass, peak=0.4)
    bright = np.abs(drawn - (frame * 0.15 + brightest() * 0.85)).max(-1) <= 1
    expected = np.zeros(SIZE, bool)
    expected[pixel_block(row, col, GRID, SIZE)] = True
    np.testing.assert_array_equal(bright, expected)
    assert (frame == 30).all()


def test_what_is_not_held_is_grey_and_hatched():
    mass = np.full(GRID, 0.1, np.float32)
    mass[3:] = np.nan
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[..., 0] = 200
    drawn = heat(frame, mass, peak=0.1)
    gone = drawn[48:]
    assert (gone == gone[..., :1]).all() and len(np.unique(gone)) == 2
    assert not (drawn[:48] == drawn[:48, :, :1]).all(-1).any()


def test_the_query_is_framed():
    frame, mass = np.full((*SIZE, 3), 60, np.uint8), np.zeros(GRID, np.float32)
    changed = (heat(frame, mass, 1.0, query=(1, 2)) != heat(frame, mass, 1.0)).any(-1)
    ys, xs = np.nonzero(changed)
    assert abs(ys.min() - 16) <= 1 and abs(ys.max() - 31) <= 1 and abs(xs.min() - 32) <= 1 and abs(xs.max() - 47) <= 1
    assert not changed[20:28, 36:44].any()


def test_a_latent_frame_is_four_video_frames():
    video = np.arange(24)[:, None, None, None] * np.ones((1, 2, 2, 3), int)
    assert frames_of(2, video)[:, 0, 0, 0].tolist() == [8, 9, 10, 11]


def test_segments_are_tinted_in_their_own_colours():
    frame = np.full((*SIZE, 3), 100, np.uint8)
    states = [STATES.index(name) for name in ("sink", "dropped", "moved", "moved", "kept", "current")]
    drawn = tint(frame, states, GRID)
    for segment, name in enumerate(("sink", None, "moved", "moved", "kept", "current")):
        pixel = drawn[segment * 16 + 9, 120].astype(int)
        if name:
            colour = np.array([int(KINDS[name].light[i : i + 2], 16) for i in (1, 3, 5)])
            assert np.abs(pixel - (62 + 0.38 * colour)).max() <= 1, name
        else:
            assert len(set(pixel)) == 1
    assert (drawn[15:17, 100] == 255).all() and not (drawn[47:49, 100] == 255).all()
    with pytest.raises(ValueError, match="7 segments do not divide"):
        tint(frame, [0] * 7, GRID)


def test_the_sheet_shows_every_latent_frame_on_one_scale():
    video = np.full((12, *SIZE, 3), 20, np.uint8)
    maps = {frame: np.full(GRID, 0.01, np.float32) for frame in (0, 2)}
    maps[2][4, 6] = 0.3
    drawn = attention_sheet(video, maps, (0, 0), query_frame=2, columns=3)
    assert drawn.shape == (96 + 16 + 6, 3 * 160 + 2 * 6, 3)
    third = drawn[:96, 2 * 166 :]
    assert np.abs(third[72, 104] - (20 * 0.15 + brightest() * 0.85)).max() <= 1
    middle = drawn[:96, 166 : 166 + 160]
    assert (middle == middle[..., :1]).all()
    assert sheet([video[0]] * 4, ["a"] * 4, columns=2).shape == (2 * 118, 326, 3)
