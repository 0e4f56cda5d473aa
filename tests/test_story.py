"""The memory world: what leaves comes back as it was, what is open is decided by noise, and captions say the rest."""

import random

import numpy as np
import pytest

from fkv.world import panorama, shots
from fkv.world.captions import Scene, Thing, known_words
from fkv.world.render import PALETTE, render
from fkv.world.shots import Shot, Subject, memory_words, sample_shot
from fkv.world.story import CHUNK, STORY_GENES, TURN_FRAMES, Story

CALM = [0.45] * STORY_GENES  # no reversal, passer-by or light; colours, shapes and counts from the middle
AHEAD = Shot("hills", "day", Subject(None, None, "bouncing"))


def look(shot: Shot, camera: str) -> Shot:
    return Shot(shot.place, shot.time, shot.subject, camera, shot.lamps)


def random_genes(seed: int, chunks: int) -> list[list[float]]:
    rng = random.Random(seed)
    return [[rng.random() for _ in range(STORY_GENES)] for _ in range(chunks)]


def calm(seed: int, chunks: int) -> list[list[float]]:
    """Random genes without events."""
    return [[*CALM[:6], *row[6:]] for row in random_genes(seed, chunks)]


@pytest.mark.parametrize("held_out", [False, True])
def test_every_caption_of_a_shot_is_read_back_from_known_words(held_out):
    rng = random.Random(0)
    for _ in range(400):
        shot = sample_shot(rng)
        text = shots.caption(shot, rng, held_out)
        assert shots.parse(text) == shot, text
        assert set(text.replace(",", "").split()) <= set(memory_words())


def test_todays_vocabulary_comes_first_and_stays_as_it_is():
    assert memory_words()[: len(known_words())] == known_words() and len(set(memory_words())) == len(memory_words())


def test_a_prompt_that_refers_back_is_read():
    shot = shots.parse("the ball from before bouncing over the sea at night, looking left")
    assert shot == Shot("sea", "night", Subject(None, "ball", "bouncing", before=True), "left")
    with pytest.raises(ValueError, match="no camera direction"):
        shots.parse("a red ball bouncing over the sea at night")


def test_a_story_without_events_draws_todays_world_to_the_last_pixel():
    scene = Scene("sea", "sunset", (Thing("red", "ball", "bouncing"), Thing("blue", "star", "circling")))
    genes = [[random.Random(5).random() for _ in range(STORY_GENES)], *[CALM] * 5]
    video = panorama.draw([moment for chunk in panorama.tell([scene] * 6, genes).chunks for moment in chunk.moments])
    assert (video == render(scene, range(6 * CHUNK), genes[0])).all()


@pytest.mark.parametrize("away", [8, 24, 80])
def test_scenery_returns_to_the_last_pixel_however_long_it_was_away(away):
    scenes = [AHEAD] * 8 + [look(AHEAD, "left")] * away + [AHEAD] * 16
    story = panorama.tell(scenes, calm(1, len(scenes)))
    turned = 8 + TURN_FRAMES // CHUNK
    assert not any(0 in chunk.panels for chunk in story.chunks[turned : 8 + away])
    back = story.chunks[8 + away + 8]  # the same phase of all motions as at the start
    assert (panorama.draw(story.chunks[0].moments) == panorama.draw(back.moments)).all()


def test_panels_differ_and_are_decided_when_they_are_first_seen():
    scenes = [AHEAD] * 2 + [look(AHEAD, "right")] * 6
    genes = calm(2, 8)
    story = panorama.tell(scenes, genes)
    assert [chunk.events.revealed for chunk in story.chunks[:4]] == [(0,), (), (1,), ()]
    other = [*genes[:3], *calm(3, 5)]
    assert panorama.tell(scenes, other).chunks[-1].moments[0].panels == story.chunks[-1].moments[0].panels
    other = [*genes[:2], *calm(3, 6)]
    assert panorama.tell(scenes, other).chunks[-1].moments[0].panels != story.chunks[-1].moments[0].panels


def test_a_thing_that_left_comes_back_with_its_colour_and_shape():
    gone = Shot("hills", "day", None)
    again = Shot("hills", "day", Subject(None, None, "circling", before=True))
    other = Shot("hills", "day", Subject(None, None, "circling"))
    genes = calm(4, 12)
    looks = [panorama.tell([AHEAD] * 3 + [gone] * 6 + [last] * 3, genes).chunks for last in (again, other)]
    first, back, fresh = looks[0][0], looks[0][-1], looks[1][-1]
    assert not looks[0][5].moments[0].things
    assert back.moments[0].things[0].thing == Thing(*_colour_and_shape(first), "circling")
    assert _colour_and_shape(fresh) != _colour_and_shape(first)


def _colour_and_shape(chunk):
    thing = chunk.moments[0].things[0].thing
    return thing.colour, thing.shape


@pytest.mark.parametrize("motion", ["hiding", "roaming"])
def test_a_thing_vanishes_and_comes_back_when_noise_says_so(motion):
    shot = Shot("desert", "day", Subject("red", "ball", motion))
    genes = calm(0, 20)
    genes[12][0] = 0.1
    moments = [moment for chunk in panorama.tell([shot] * 20, genes).chunks for moment in chunk.moments]
    hidden = (panorama.labels(moments) == panorama.THING).sum((1, 2)) < 20
    assert not hidden[:24].any() and hidden[84:144].all() and not hidden[168:200].any()
    red = np.abs(panorama.draw(moments).astype(int) - PALETTE["red"]).max(-1) < 3
    assert not red[hidden].any(axis=(1, 2)).any() and (red[~hidden].sum((1, 2)) > 0).mean() > 0.95


@pytest.mark.parametrize("event", ["camera", "prompt"])
def test_what_happens_out_of_the_picture_does_not_show_when_a_thing_is_back(event):
    away = look(AHEAD, "left") if event == "camera" else Shot("hills", "day", None)
    scenes = [AHEAD] * 3 + [away] * 5 + [AHEAD] * 2
    genes = calm(4, len(scenes))
    other = [row[:] for row in genes]
    for chunk in range(4, 8):
        other[chunk][:2] = [0.1, 0.1]  # reversals, were it in the picture
    first, second = (panorama.tell(scenes, rows).chunks[-2:] for rows in (genes, other))
    start = panorama.tell([AHEAD], genes[:1]).chunks[0]
    assert [chunk.moments for chunk in first] == [chunk.moments for chunk in second]
    last = first[0].moments[-1].things[0]
    assert (last.x - start.moments[-1].things[0].x) == pytest.approx(start.moments[-1].pan - first[0].moments[-1].pan)


def test_a_viewer_that_forgets_sees_another_panorama():
    scenes = [AHEAD] * 2 + [look(AHEAD, "left")] * 12 + [AHEAD] * 6
    genes = calm(6, len(scenes))

    def last_three(chunk: int, seen: frozenset[int]) -> frozenset[int]:
        return frozenset(c for c in seen if c >= chunk - 3)

    forgetful = Story(last_three)
    for scene, row in zip(scenes, genes, strict=True):
        forgetful.extend(scene, row)
    faithful = panorama.tell(scenes, genes)
    assert [c.events.forgotten for c in forgetful.chunks if c.events.forgotten] == [(0,)]
    assert forgetful.chunks[-1].moments[-1].panels[0] != faithful.chunks[-1].moments[-1].panels[0]
    assert forgetful.chunks[12].moments[0].panels == faithful.chunks[12].moments[0].panels


def test_events_follow_the_noise_of_their_chunk_alone():
    scene = Scene("hills", "day", (Thing("red", "ball", "drifting"),))
    genes = [CALM[:] for _ in range(8)]
    genes[3] = [0.1, 0.9, 0.1, 0.5, 0.2, *CALM[5:]]
    story = panorama.tell([scene] * 8, genes)
    assert [chunk.events.reversed for chunk in story.chunks] == [(), (), (), (0,), (), (), (), ()]
    assert [chunk.events.passer is not None for chunk in story.chunks] == [False] * 3 + [True] + [False] * 4
    assert [chunk.moments[0].passer is not None for chunk in story.chunks] == [False] * 3 + [True] * 4 + [False]
    calm_story = panorama.tell([scene] * 8, [CALM] * 8)
    same = [
        (panorama.draw(a.moments) == panorama.draw(b.moments)).all()
        for a, b in zip(story.chunks, calm_story.chunks, strict=True)
    ]
    assert same == [True] * 3 + [False] * 5


def test_a_window_that_lit_up_stays_lit_while_nobody_looks():
    genes = calm(8, 24)
    genes[2][5] = 0.01
    scenes = [AHEAD] * 4 + [look(AHEAD, "left")] * 12 + [AHEAD] * 8
    story = panorama.tell(scenes, genes)
    windows = [chunk.moments[-1].panels[0].lit for chunk in story.chunks if 0 in chunk.moments[-1].panels]
    assert story.chunks[2].events.lights == 0
    assert windows[:2] == [windows[0]] * 2 and set(windows[2:]) == {not windows[0]}


def test_a_caption_can_count_the_lamps():
    for count in range(1, 5):
        story = panorama.tell([Shot("city", "night", None, "ahead", count)], calm(9, 1))
        lamps = panorama.labels(story.chunks[0].moments[:1])[0] == panorama.LAMP
        assert story.chunks[0].moments[0].panels[0].lamps == count and lamps.any()
