"""Prompts of the evaluation: scenes that training never sees, in a wording of their own."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from fkv.world import shots
from fkv.world.captions import COLOURS, SCENES, Scene, caption, sample_scene
from fkv.world.render import GENES, render
from fkv.world.story import CHUNK

# Scenes of the evaluation come from seeds above this, those of training from far below.
HELD_OUT_SEEDS = 2**40


def held_out_scene(index: int) -> Scene:
    """Return the scene of evaluation prompt `index`; training saw the words of its caption, not its wording."""
    return sample_scene(random.Random(HELD_OUT_SEEDS + index))


def held_out_text(index: int) -> str:
    """Return the caption of `held_out_scene`, evaluation prompt `index`."""
    return caption(held_out_scene(index), held_out=True)


def held_out_shot(index: int) -> str:
    """Return the caption of a shot of the memory world, as evaluation prompt `index`."""
    return shots.caption(shots.sample_shot(random.Random(HELD_OUT_SEEDS + index)), held_out=True)


def switched_scene(index: int) -> tuple[Scene, str]:
    """Return the scene that prompt `index` is switched to, and what changes: the first thing's colour, or the place."""
    scene = held_out_scene(index)
    rng = random.Random(HELD_OUT_SEEDS + index)
    if index % 2:
        return replace(scene, place=rng.choice([place for place in SCENES if place != scene.place])), "place"
    used = [thing.colour for thing in scene.things]
    first = replace(scene.things[0], colour=rng.choice([colour for colour in COLOURS if colour not in used]))
    return replace(scene, things=(first, *scene.things[1:])), "colour"


def rendered(scene: Scene, chunks: int, seed: int) -> np.ndarray:
    """Return a perfect video of a scene, drawn and not generated, uint8 [T, H, W, 3]; what it leaves open is random."""
    rng = random.Random(seed)
    return render(scene, range(chunks * CHUNK), [rng.random() for _ in range(GENES)])
