"""A storyboard: the changes of a run, in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from fkv.sampler import Schedule

from .changes import Change, Cut, SetPolicy, SetPrompt, SetSteps, Streams
from .lines import write_change


@dataclass(frozen=True)
class Cue:
    """A change and the index of the chunk before which it is applied, counted from 0."""

    chunk: int
    change: Change

    @property
    def cut(self) -> bool:
        """Whether a hard cut comes before the chunk."""
        return isinstance(self.change, Cut) or (isinstance(self.change, SetPrompt) and self.change.cut)


@dataclass(frozen=True)
class Storyboard:
    """What changes when.

    Args:
        cues: In the order in which they are applied.
        chunks: Length of all scenes together, None for a storyboard of lines.
    """

    cues: tuple[Cue, ...] = ()
    chunks: int | None = field(default=None, compare=False)

    @property
    def opening(self) -> str | None:
        """The prompt with which the run begins, None where the storyboard leaves it open."""
        prompts = [cue.change.prompt for cue in self.cues if cue.chunk == 0 and isinstance(cue.change, SetPrompt)]
        return prompts[-1] if prompts else None

    @property
    def prompts(self) -> list[str]:
        """All prompts, in the order in which they are applied."""
        return [cue.change.prompt for cue in self.cues if isinstance(cue.change, SetPrompt)]

    def without_opening(self) -> Storyboard:
        """The same storyboard for a stream that already begins with the opening prompt."""
        later = (cue for cue in self.cues if cue.chunk or not isinstance(cue.change, SetPrompt))
        return replace(self, cues=tuple(later))

    def changes(self, chunk: int) -> list[Change]:
        """The changes to apply before a chunk, counted from 0, without the opening prompt."""
        return [cue.change for cue in self.without_opening().cues if cue.chunk == chunk]

    def apply(self, chunk: int, streams: Streams) -> list[str]:
        """Apply the changes before a chunk, counted from 0. Returns sentences on what was possible only in part."""
        said = [change.apply(streams) for change in self.changes(chunk)]
        return [sentence for sentence in said if sentence]

    def with_cues(self, cues: Iterable[Cue]) -> Storyboard:
        """The same storyboard with more cues, each after those of the same chunk."""
        return replace(self, cues=tuple(sorted((*self.cues, *cues), key=lambda cue: cue.chunk)))

    def opened_by(self, change: Change) -> Storyboard:
        """The same storyboard with a change that comes before all others."""
        return replace(self, cues=(Cue(0, change), *self.cues))

    def check_fits(self, chunks: int, streams: Collection[str], schedule: Schedule) -> None:
        """Check the cues against a run.

        Args:
            chunks: Length of the run in chunks.
            streams: Names of the streams that may be given another policy.
            schedule: The denoising steps of the model.

        Raises:
            ValueError: A cue comes after the end, gives another policy to a stream that may have none, or asks for
                more denoising steps than the model has.
        """
        for cue in self.cues:
            if cue.chunk >= chunks:
                raise ValueError(f"chunk {cue.chunk + 1} comes after the last of {chunks}")
            if isinstance(cue.change, SetPolicy) and cue.change.stream not in streams:
                allowed = f"only {', '.join(streams)} can" if streams else "each stream keeps its policy here"
                line = f"{cue.chunk + 1}: {write_change(cue.change)}"
                raise ValueError(f"{line!r} gives stream {cue.change.stream} another policy; {allowed}")
            if isinstance(cue.change, SetSteps):
                schedule.with_steps(cue.change.steps)

    def with_recache(self) -> Storyboard:
        """The same storyboard with re-cache at every new prompt, except at cuts."""
        return replace(self, cues=tuple(_recached(cue) for cue in self.cues))


def _recached(cue: Cue) -> Cue:
    if not isinstance(cue.change, SetPrompt) or cue.cut:
        return cue
    return replace(cue, change=replace(cue.change, recache=True))


NO_STORY = Storyboard()
"""Nothing changes."""
