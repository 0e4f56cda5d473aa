"""Read and write storyboards as text: numbered lines, or scenes with durations."""

from __future__ import annotations

import math
import re

import numpy as np

from fkv.roles import HeadRoles
from fkv.stream import MAX_CHUNKS, check_chunks, check_prompt

from .changes import SetPrompt
from .lines import read_change, write_change
from .timeline import Cue, Storyboard

NUMBERED = re.compile(r"\s*\d+\s*:")
DURATION = re.compile(r"\[\s*(\d{1,9}(?:\.\d{1,9})?)\s*([sc]?)\s*(#?)\s*\]")
LINE_EXAMPLE = "6: A = sliding-window or 6: a blue star"
SCENE_EXAMPLE = "a red ball [10s] | a blue star [12c#]"
MAX_LINES = 2000  # lines or scenes
ANY_ROLES = HeadRoles(1, ((),), np.zeros((1, 1)))  # roles with scores, for checks before a model is loaded


def parse(
    text: str, roles: HeadRoles | None = None, chunks: int | None = None, chunk_seconds: float | None = None
) -> Storyboard:
    """Read a storyboard in either form.

    Args:
        text: Numbered lines, or scenes with durations.
        roles: The model's head roles, whose scores a threshold splits.
        chunks: Length of the run in chunks, None if it is endless or follows the scenes.
        chunk_seconds: Seconds of video in one chunk, for durations in seconds.

    Raises:
        ValueError: Names the line or scene that cannot be read or begins after the end, and says how to write it.
    """
    scenes = has_scenes(text)
    parts = text.count("|") if scenes else len(text.splitlines())
    if parts > MAX_LINES:
        raise ValueError(
            f"the storyboard has {parts:,} {'scenes' if scenes else 'lines'}; at most {MAX_LINES:,} are read"
        )
    if scenes:
        return _scenes(text, chunks, chunk_seconds)
    cues = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                chunk, what = at_chunk(line.strip(), chunks, f"{LINE_EXAMPLE}, or as scenes: {SCENE_EXAMPLE}")
                cues.append(Cue(chunk, read_change(what, roles)))
            except ValueError as error:
                raise ValueError(f"line {number} of the storyboard: {error}") from None
    return Storyboard().with_cues(cues)


def has_scenes(text: str) -> bool:
    """Whether a storyboard is written as scenes with durations, not as numbered lines."""
    return not NUMBERED.match(text) and DURATION.search(text) is not None


def check(text: str) -> None:
    """Raise ValueError for a text that no model can read, before one is loaded; `parse` checks the rest."""
    parse(text, ANY_ROLES, None, 1.0)


def at_chunk(text: str, chunks: int | None, example: str) -> tuple[int, str]:
    """Split `NUMBER:WHAT` into the index of the chunk, counted from 0, and the rest.

    Args:
        text: The number counts chunks from 1.
        chunks: Length of the run in chunks, None if it is endless.
        example: What a correct text looks like.

    Raises:
        ValueError: For any other text, and a chunk that the run does not have.
    """
    number, colon, what = text.partition(":")
    number, what = number.strip(), what.strip()
    if not colon or not number.isdecimal() or not what:
        raise ValueError(f"{text!r:.80} should be written CHUNK:WHAT, as in {example}")
    if len(number) > len(str(MAX_CHUNKS)) or not 1 <= int(number) <= MAX_CHUNKS:
        raise ValueError(f"there is no chunk {number:.20}; chunks are counted from 1 to {MAX_CHUNKS:,}")
    if chunks is not None and int(number) > chunks:
        raise ValueError(f"chunk {int(number)} comes after the last of {chunks}")
    return int(number) - 1, what


def write(storyboard: Storyboard) -> str:
    """Write a storyboard as lines that `parse` reads back. Raises ValueError for a change that has no line."""
    return "\n".join(f"{cue.chunk + 1}: {write_change(cue.change)}" for cue in storyboard.cues)


def _scenes(text: str, chunks: int | None, chunk_seconds: float | None) -> Storyboard:
    """Read scenes with durations."""
    cues = []
    begin = 0
    for number, scene in enumerate(text.split("|"), 1):
        try:
            if chunks is not None and begin >= chunks:
                raise ValueError(f"it begins at chunk {begin + 1}, after the last of {chunks}")
            prompt, length, cut = _scene(scene, chunk_seconds)
            if cut and not begin:
                raise ValueError("the video begins with it, so there is nothing to cut from; leave out the #")
            cues.append(Cue(begin, SetPrompt(prompt, cut=cut)))
            begin = check_chunks(begin + length)
        except ValueError as error:
            raise ValueError(f"scene {number} of the storyboard: {error}") from None
    return Storyboard(tuple(cues), begin)


def _scene(text: str, chunk_seconds: float | None) -> tuple[str, int, bool]:
    """The prompt of a scene, its length in chunks, and whether a hard cut leads into it."""
    durations = list(DURATION.finditer(text))
    if len(durations) != 1 or text[durations[0].end() :].strip():
        raise ValueError(f"{' '.join(text.split())!r:.80} should end with one duration, as in {SCENE_EXAMPLE}")
    number, unit, cut = durations[0].groups()
    prompt = check_prompt(" ".join(text[: durations[0].start()].split()))
    if unit == "s":
        if chunk_seconds is None:
            raise ValueError("durations in seconds need a model, whose frame rate tells how long a chunk is")
        length = math.ceil(float(number) / chunk_seconds - 1e-9)
    elif not number.isdecimal():
        whole = math.ceil(float(number))
        raise ValueError(f"[{number}{unit}] is no whole number of chunks; write [{whole}] or [{number}s]")
    else:
        length = int(number)
    if length < 1:
        raise ValueError(f"[{number}{unit}] is no time; a scene lasts at least [1] chunk")
    return prompt, length, bool(cut)
