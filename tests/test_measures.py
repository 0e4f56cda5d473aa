"""Measures on constructed videos whose answer is known."""

import cv2
import numpy as np
import pytest

from fkv.analysis.measures import (
    EQUAL_DB,
    Drift,
    bounded_psnr,
    change,
    chunk_discontinuity,
    drift,
    flicker,
    hue_kept,
    motion,
    movement,
    per_second,
    ssim,
)
from fkv.policies import Full
from fkv.stream import Stream, video_of

TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 200, 3), np.uint8), (0, 0), 3)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX)


def panned(steps):
    """A window over the texture that moves by `steps` pixels from frame to frame."""
    return np.stack([TEXTURE[:, x : x + 96] for x in np.cumsum([0, *steps])])


def flat(*levels):
    return np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])


def test_motion_is_in_pixels_per_frame():
    assert motion(panned([2, 2, 4])) == pytest.approx([2, 2, 4], rel=0.15)


def test_even_motion_has_no_discontinuity_and_a_still_video_none_either():
    assert chunk_discontinuity(panned([2] * 8), 3) == pytest.approx(1, abs=0.1)
    assert chunk_discontinuity(flat(*[90] * 6), 2) == 1


def test_jumps_at_chunk_borders_stand_out():
    steps = [1, 1, 6, 1, 1, 6, 1, 1]
    assert chunk_discontinuity(panned(steps), 3) == pytest.approx(6 / np.mean(steps), rel=0.15)


def test_drift_compares_the_end_with_the_beginning():
    assert drift(flat(10, 10, 200, 10, 10), fps=2, seconds=1) == Drift(0, 0, 0)
    assert drift(flat(10, 10, 50, 90, 90), fps=2, seconds=1) == Drift(1, 80, 0)
    assert drift(flat(10, 90), fps=16) == Drift(1, 80, 0)
    half = flat(100, 100)
    half[1, :8], half[1, 8:] = 60, 140
    assert drift(half, fps=1, seconds=1) == Drift(1, 0, 40)


def coloured(*colours):
    return np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])


def test_the_share_that_moves():
    still_below = panned([4] * 4)
    still_below[:, 40:] = 90  # the upper 40 of 64 rows move
    assert ((movement(still_below)[1] >= 40 / 64) & (movement(still_below)[1] <= 52 / 64)).all()  # flow is smoothed
    assert movement(panned([4]))[1] == pytest.approx(1, abs=0.02)
    assert movement(flat(90, 90, 90))[1].tolist() == [0, 0]


def test_hues_that_stay_are_kept():
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    assert hue_kept(coloured(red, red, green, (90, 0, 0)), fps=1, seconds=1) == 100
    assert hue_kept(coloured(red, blue), fps=16) == 0
    half = coloured(red, red)
    half[1, :2] = green  # a quarter of the last frame
    assert hue_kept(half, fps=1, seconds=1) == 75


def test_seconds_are_described_one_by_one():
    video = coloured((100, 100, 100), (100, 100, 100), (200, 100, 100), (200, 100, 100), (200, 100, 100))
    found = per_second(video, fps=2)  # the fifth frame is half a second: it counts to the second
    assert found["saturation"] == pytest.approx([0, 0.5], abs=0.002) and found["detail"].tolist() == [0, 0]
    assert found["brightness"].tolist() == [100, 130]  # 0.299 * 200 + 0.701 * 100, rounded
    stripes = flat(0, 0)
    stripes[:, :, ::2] = 255
    assert per_second(stripes, fps=2)["detail"].tolist() == [510]  # 4 * 255 - 2 * 255, of either sign


def test_a_change_is_the_end_minus_the_beginning():
    assert change([1, 2, 3, 4, 5], 2) == 3 and change([7.0, 5.0], 5) == -2 and change([7.0], 5) == 0


def test_flicker_is_the_amplitude_of_alternation_and_ignores_a_steady_change():
    assert flicker(flat(100, 110, 100, 110)) == 10
    assert flicker(flat(100, 110, 120, 130)) == 0


def test_psnr_and_ssim_of_a_known_error():
    video = panned([1])
    brighter = flat(100, 100)
    assert bounded_psnr(brighter + np.uint8(10), brighter) == pytest.approx(20 * np.log10(25.5))
    assert bounded_psnr(video, video) == EQUAL_DB and ssim(video, video) == pytest.approx(1)
    assert ssim(255 - video, video) < 0 < ssim(cv2.blur(video[0], (5, 5))[None], video[:1]) < 1
    c1 = (0.01 * 255) ** 2
    assert ssim(brighter + np.uint8(10), brighter) == pytest.approx((2 * 100 * 110 + c1) / (100**2 + 110**2 + c1))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: chunk_discontinuity(flat(1, 2, 3), 1), "between 2 chunks"),
        (lambda: chunk_discontinuity(flat(1, 2, 3), 4), "between 2 chunks"),
        (lambda: motion(flat(1)), "at least 2 frames"),
        (lambda: flicker(flat(1, 2).astype(float)), "uint8 video"),
        (lambda: drift(flat(1, 2), fps=0), "must be positive"),
        (lambda: bounded_psnr(flat(1), flat(1, 2)), "same size"),
        (lambda: ssim(flat(1), flat(1, 2)), "same size"),
    ],
)
def test_unfit_videos_are_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_video_of_chunks_is_their_videos_joined(small):
    chunks = [Stream(small, Full(), "a red ball").step(), Stream(small, Full(), "a blue box").step()]
    np.testing.assert_array_equal(video_of(chunks), np.concatenate([chunk.video for chunk in chunks]))
    for bare in ([], [chunks[0], Stream(small, Full(), "a red ball", decode=False).step()]):
        with pytest.raises(ValueError, match="have no video"):
            video_of(bare)
