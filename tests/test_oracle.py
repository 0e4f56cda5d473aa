"""The oracle: right on renders, robust to what codecs do, and silent where there is nothing to read."""

import random

import cv2
import numpy as np
import pytest

from fkv.world import oracle
from fkv.world.captions import Scene, Thing, sample_scene
from fkv.world.oracle import Reading, Sighting, agreement, read
from fkv.world.render import GENES, PALETTE, render

BALL, STAR = Thing("red", "ball", "bouncing"), Thing("cyan", "star", "drifting")
GENES_0 = [random.Random(3).random() for _ in range(GENES)]


def test_it_reads_random_renders():
    assert oracle.accuracy(samples=6, seed=5) == pytest.approx({word: 1.0 for word in oracle.WORDS})


@pytest.mark.parametrize("motion", ["bouncing", "drifting", "circling", "swinging"])
def test_it_tells_motions_apart_in_three_seconds(motion):
    video = render(Scene("desert", "sunset", (Thing("orange", "heart", motion),)), range(31, 79), GENES_0)
    (thing,) = read(video).things
    assert (thing.colour, thing.shape, thing.motion) == ("orange", "heart", motion)


def test_one_chunk_is_enough_for_all_but_motion():
    reading = read(render(Scene("sea", "night", (BALL, STAR)), range(500, 512), GENES_0))
    assert (reading.place, reading.time) == ("sea", "night")
    assert [(thing.colour, thing.shape, thing.motion) for thing in reading.things] == [
        ("red", "ball", None),
        ("cyan", "star", None),
    ]
    assert reading.things[0].x < 80 < reading.things[1].x


def test_blur_noise_and_pale_colours_do_not_mislead():
    rng = np.random.default_rng(0)
    for seed in range(4):
        scene = sample_scene(random.Random(seed), two=0.5)
        video = render(scene, range(40, 88), GENES_0).astype(np.float32)
        pale = (
            0.9 * np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in video])
            + 10
            + rng.normal(0, 5, video.shape)
        )
        assert min(agreement(scene, read(pale.clip(0, 255).astype(np.uint8))).values()) == 1, scene


def test_empty_scenery_holds_no_thing_and_a_blank_picture_nothing():
    assert read(render(Scene("city", "night", ()), range(4), GENES_0)) == Reading("city", "night", ())
    assert read(np.full((3, 96, 160, 3), (255, 0, 255), np.uint8)) == Reading(None, None, ())
    full = read(np.full((3, 96, 160, 3), PALETTE["red"], np.uint8))
    assert full.place is None and [thing.shape for thing in full.things] == [None]


def test_a_thing_that_changes_colour_is_one_thing():
    frames = range(0, 24)
    before, after = (
        render(Scene("hills", "day", (Thing(colour, "box", "drifting"),)), frames, GENES_0)
        for colour in ("red", "blue")
    )
    (thing,) = read(np.concatenate([before[:12], after[12:]])).things
    assert thing.shape == "box"


def test_still_things_have_no_motion():
    frame = render(Scene("hills", "day", (BALL,)), [6], GENES_0)
    assert read(frame.repeat(80, 0)).things[0].motion is None


def test_agreement_counts_what_is_missing_wrong_and_too_many():
    said = Scene("sea", "day", (BALL, STAR))
    seen = Sighting("cyan", "star", "drifting", 30.0), Sighting("red", "ball", "circling", 120.0)
    assert agreement(said, Reading("sea", "night", seen)) == {
        "colour": 1,
        "shape": 1,
        "motion": 0.5,
        "place": 1,
        "time": 0,
    }
    assert agreement(said, Reading("sea", None, seen[:1])) == {
        "colour": 0.5,
        "shape": 0.5,
        "motion": 0.5,
        "place": 1,
        "time": 0,
    }
    assert agreement(Scene("sea", "day", (STAR,)), Reading("sea", "day", seen))["colour"] == 0.5
    assert agreement(said, Reading(None, None, ())) == dict.fromkeys(oracle.WORDS, 0.0)


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 96, 160, 3)), np.zeros((0, 96, 160, 3), np.uint8), np.zeros((4, 90, 160, 3), np.uint8)]
)
def test_it_refuses_what_is_no_picture_of_its_world(frames):
    with pytest.raises(ValueError, match="uint8 frames"):
        read(frames)


def test_accuracy_refuses_no_samples():
    with pytest.raises(ValueError, match="at least 1"):
        oracle.accuracy(0, 0)


def test_accuracy_reads_what_the_frames_became():
    dark = oracle.accuracy(2, 0, frames=12, through=np.zeros_like)
    assert dark["colour"] == dark["time"] == 0
