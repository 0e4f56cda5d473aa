"""The memory world's oracle: right on renders, silent where there is nothing to read."""

import random

import numpy as np
import pytest

from fkv.world import panorama, witness
from fkv.world.captions import MOTIONS, SCENES, TIMES, Scene, Thing
from fkv.world.shots import CAMERAS, Shot, Subject
from fkv.world.story import STORY_GENES


def genes(rng: random.Random, chunks: int) -> list[list[float]]:
    return [[rng.random() for _ in range(STORY_GENES)] for _ in range(chunks)]


@pytest.mark.parametrize("time", TIMES)
def test_it_reads_the_panel_and_the_thing_in_view(time):
    rng = random.Random(time)
    for place in SCENES:
        camera = rng.choice(CAMERAS)
        shot = Shot(place, time, Subject(None, None, "bouncing"), camera)
        chunk = panorama.tell([shot] * 2, genes(rng, 2)).chunks[1]
        video = panorama.draw(chunk.moments)
        panel = chunk.moments[6].panels[CAMERAS.index(camera) - 1]
        reading = witness.read_panel(video, time)
        assert (reading.colour, reading.shape, reading.lamps, reading.lit) == (
            panel.colour,
            panel.shape,
            panel.lamps,
            panel.lit,
        )
        thing = chunk.moments[0].things[0].thing
        expected = (thing.colour, thing.shape) if camera == "ahead" else (None, None)
        assert witness.read_thing(video, reading.colour) == expected


@pytest.mark.parametrize("motion", MOTIONS)
def test_it_reads_reversals_and_passers_by(motion):
    rng = random.Random(motion)
    scene = Scene("desert", "day", (Thing("blue", "heart", motion),))
    story = panorama.tell([scene] * 10, genes(rng, 10))
    video = panorama.draw([moment for chunk in story.chunks for moment in chunk.moments])
    assert witness.read_reversals(video, scene.things[0]) == tuple(bool(c.events.reversed) for c in story.chunks)
    for index, chunk in enumerate(story.chunks):
        passer = chunk.moments[6].passer
        seen = witness.read_passer(video[12 * index : 12 * index + 12])
        assert seen == (passer.colour if passer else None)


@pytest.mark.parametrize("motion", MOTIONS)
def test_it_reads_the_motion_of_a_thing_that_reverses(motion):
    scene = Scene("hills", "sunset", (Thing("green", "box", motion),))
    turns = [[0.9] * 6 + [0.5] * (STORY_GENES - 6) for _ in range(10)]
    turns[3][0] = turns[7][0] = 0.1
    video = panorama.draw([moment for chunk in panorama.tell([scene] * 10, turns).chunks for moment in chunk.moments])
    assert witness.read_motion(video[40:], 40, "green", "box") == motion
    assert witness.read_motion(video[:20], 0, "green", "box") is None


def test_it_is_silent_where_there_is_nothing_to_read():
    blank = np.full((12, 96, 160, 3), (255, 0, 255), np.uint8)
    assert witness.read_panel(blank, "day") == witness.PanelReading()
    assert witness.read_thing(blank) == (None, None)
    assert witness.read_passer(blank) is None


def test_accuracy_counts_what_frames_lost():
    shares = witness.accuracy(4, seed=2)
    assert (
        set(shares) == {"colour", "shape", "lamps", "lit", "thing", "reversal", "passer"} and min(shares.values()) > 0.9
    )
    dark = witness.accuracy(2, seed=2, through=np.zeros_like)
    assert dark["colour"] == dark["lamps"] == 0
