"""The toy world: captions that can be read back, pictures that show what they say."""

import random

import numpy as np
import pytest

from fkv.world import HEIGHT, WIDTH
from fkv.world.captions import (
    COLOURS,
    MOTIONS,
    SCENES,
    SHAPES,
    TIMES,
    Scene,
    Thing,
    caption,
    known_words,
    parse,
    sample_scene,
    unknown_words,
    words,
)
from fkv.world.render import GENES, PALETTE, PERIOD, position, render

GENE = [0.3] * GENES


@pytest.mark.parametrize("held_out", [False, True])
def test_every_caption_is_read_back_and_uses_known_words_only(held_out):
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng, two=0.5)
        text = caption(scene, rng, held_out)
        assert parse(text) == scene and not unknown_words(text)


def test_synonyms_and_unknown_words():
    assert words("A CRIMSON sphere, hopping!") == ["a", "crimson", "ball", "bouncing"]
    assert unknown_words("a crimson sphere and a crimson dragon") == ["crimson", "dragon"]
    assert len(set(known_words())) == len(known_words())


def test_a_prompt_that_leaves_things_open_says_what_is_missing():
    with pytest.raises(ValueError, match="no colour, no motion"):
        parse("a ball over the sea at night")


@pytest.mark.parametrize("place", SCENES)
@pytest.mark.parametrize("time", TIMES)
def test_the_thing_is_painted_in_its_colour_where_position_says(place, time):
    for colour, shape, motion in zip(COLOURS, SHAPES * 2, MOTIONS * 2, strict=False):
        thing = Thing(colour, shape, motion)
        frame = render(Scene(place, time, (thing,)), [7], GENE)[0]
        painted = (np.abs(frame.astype(int) - PALETTE[colour]).max(-1) < 3).nonzero()
        x, y = position(thing, 7, GENE[3], 0, 1)
        assert len(painted[0]) > 80
        assert abs(painted[1].mean() - x) < 6 and abs(painted[0].mean() - y) < 6


def test_the_world_repeats_and_depends_on_the_genes():
    scene = Scene("hills", "day", (Thing("red", "ball", "circling"),))
    video = render(scene, [0, 5, PERIOD, PERIOD + 5], GENE)
    assert video.shape == (4, HEIGHT, WIDTH, 3) and video.dtype == np.uint8
    assert (video[0] == video[2]).all() and (video[1] == video[3]).all() and (video[0] != video[1]).any()
    assert (render(scene, [0], [0.6] * GENES) != video[:1]).any()


def test_scenery_leaves_and_returns():
    empty = Scene("desert", "day", ())
    genes = [0.0] + [0.5] * 4
    left, away, back = (render(empty, [f], genes)[0][60:90, :40].astype(int) for f in (0, PERIOD // 4, PERIOD))
    assert np.abs(left - away).mean() > 3 and (left == back).all()
