"""Keep a director ahead of a stream: debates run in a thread of their own, and the stream never waits for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from fkv.storyboard import Change, Cue, SetPrompt

from . import scenes
from .director import Direction
from .scenes import Brief

LEAD = 4  # chunks before the end of the story at which the next debate begins
REST = 6  # chunks after a debate without scenes until the next one

Direct = Callable[[Brief], Direction]
Facts = Callable[[], tuple[str, ...]]


class Ahead:
    """Writes a stream's scenes while it plays.

    Args:
        brief: What the video is about; what was shown and measured is filled in.
        direct: Holds a debate; may take long, fail or raise ValueError.
    """

    def __init__(self, brief: Brief, direct: Direct) -> None:
        self._brief = brief
        self._direct = direct
        self._cues: list[Cue] = []
        self._end = 0  # chunk at which the story ends
        self._next = 0  # chunk from which on a debate may begin
        self._work: _Work | None = None

    def begin(self) -> None:
        """Hold the first debate, before anything plays, and wait for it."""
        self._work = _Work(self._direct, self._brief, tuple)
        self._work.join()

    def changes(self, chunk: int, facts: Facts) -> tuple[list[Change], list[str]]:
        """What to change before a chunk. Returns at once.

        Args:
            chunk: Index of the chunk.
            facts: What was measured, a sentence each; called in the director's thread.

        Returns:
            The changes, and sentences on what the director did since the last call.
        """
        said = []
        if self._work and not self._work.is_alive():
            said.append(self._take(self._work, chunk))
            self._work = None
        if self._work is None and chunk >= self._next and chunk + LEAD >= self._end:
            prompts = [cue.change.prompt for cue in self._cues if isinstance(cue.change, SetPrompt)]
            self._work = _Work(self._direct, replace(self._brief, so_far=tuple(prompts)), facts)
        return [cue.change for cue in self._cues if cue.chunk == chunk], said

    def _take(self, work: _Work, chunk: int) -> str:
        """Add the scenes of a finished debate to the story, from its end on, or from this chunk if that has passed."""
        direction = work.direction
        if direction is None or not direction.scenes:
            self._next = chunk + REST
            reason = work.problem or (direction.failures if direction else "")
            return f"the director has no scenes ({reason}); the stream goes on"
        begin = max(chunk, self._end)
        self._cues += scenes.cues(direction.scenes, begin)
        self._end = begin + scenes.length(direction.scenes)
        spent = f"{direction.transcript.calls} calls, {direction.transcript.tokens:,} tokens"
        return f"the director ({direction.author}; {spent}), from chunk {begin + 1}: {direction.scenes}"


class _Work(threading.Thread):
    """A debate under way; `direction` or `problem` tells how it ended."""

    def __init__(self, direct: Direct, brief: Brief, facts: Facts) -> None:
        super().__init__(daemon=True)
        self.direction: Direction | None = None
        self.problem = ""
        self._direct = direct
        self._brief = brief
        self._facts = facts
        self.start()

    def run(self) -> None:
        try:
            self.direction = self._direct(replace(self._brief, facts=self._facts()))
        except Exception as error:  # the stream goes on whatever happens here
            self.problem = str(error) if isinstance(error, ValueError) else type(error).__name__
