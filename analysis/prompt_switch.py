"""A switch of the prompt: what changes, when, and whether it is seen in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fkv.storyboard import Cue, SetPrompt, Storyboard
from fkv.stream import Chunk, video_of
from fkv.world import oracle
from fkv.world.captions import Scene, caption

from .held_out import switched_scene

# Chunks before the prompt is switched, and chunks within which the change must be seen.
SWITCH_AFTER = 7
SWITCH_WITHIN = 3


def switch_story(prompt: int) -> Storyboard:
    """Return the change of prompt `prompt` after `SWITCH_AFTER` chunks."""
    scene, _ = switched_scene(prompt)
    return Storyboard((Cue(SWITCH_AFTER, SetPrompt(caption(scene, held_out=True))),))


def switch_chunks() -> int:
    """Return how many chunks a stream along `switch_story` has."""
    return SWITCH_AFTER + SWITCH_WITHIN


def measure_switch(chunks: Sequence[Chunk], prompt: int) -> dict[str, Any]:
    """Measure a stream along `switch_story`.

    It is a success if the change, not seen before, is seen within `SWITCH_WITHIN` chunks.
    """
    scene, word = switched_scene(prompt)
    videos = [video_of([chunk]) for chunk in chunks]
    count = chunks_until(word, scene, videos[SWITCH_AFTER:])
    already = chunks_until(word, scene, videos[SWITCH_AFTER - 1 : SWITCH_AFTER]) is not None
    return {"word": word, "success": float(count is not None and not already), "chunks": None if already else count}


def chunks_until(word: str, scene: Scene, videos: Sequence[np.ndarray]) -> int | None:
    """Return after how many chunks the new place, or the new colour of the first thing, is seen; None if never."""
    for count, video in enumerate(videos, 1):
        reading = oracle.read(video)
        colours = [thing.colour for thing in reading.things]
        if reading.place == scene.place if word == "place" else scene.things[0].colour in colours:
            return count
    return None
