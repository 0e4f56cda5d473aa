"""The timeline of a run: which change comes before which chunk, as the page, the command line and permalinks write it.

One change a line, each with the number of its chunk:

    6: a blue star drifting over the sea       another prompt (or `prompt = ...`)
    9: re-cache = a pink box in the city       another prompt, and the cache recomputed under it
    11: cut = a green heart over the hills     another prompt, and another scene where the policy knows cuts
    12: A = sliding-window                     another policy for one stream
    15: threshold = 0.7                        other head roles: static from that score on
    16: heads = 3.2 dynamic, 5.1 static        other roles of single heads, each as layer.head
    17: steps = 2                              fewer denoising steps
    18: flush                                  the cache forgets all but the first frame and the two newest
    21: cut                                    another scene under the same prompt, where the policy knows cuts

Or scenes, each a prompt with its duration in seconds of video (`[10s]`) or in chunks (`[12]` or `[12c]`):

    a red ball over the hills [10s] | the same ball at night [10s#]

Seconds are rounded up to whole chunks, scene by scene. `#` marks a hard cut into the scene. Under a policy that knows
no cuts the prompt changes without one, as a line without re-cache does; report and page call the change a cut.

Text counts chunks from 1, as the page's timeline does; a `Cue`, like the `index` of JSON reports, counts from 0.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from . import policies
from .policies.silenced import Head, silenced
from .roles import HeadRoles, Role
from .stream import MAX_CHUNKS, Chunk, Stream, check_chunks, check_prompt

NUMBERED = re.compile(r"\s*\d+\s*:")
KEYED = re.compile(r"(prompt|re-cache|cut|A|B|threshold|heads|steps)\s*=\s*(.+)", re.DOTALL)
ROLE = re.compile(r"\s*(\d{1,4})\.(\d{1,4})\s+(static|dynamic)\s*")
TELLS_ROLES = ("threshold = ", "heads = ", "roles: ")  # how lines on head roles begin
DURATION = re.compile(r"\[\s*(\d{1,9}(?:\.\d{1,9})?)\s*([sc]?)\s*(#?)\s*\]")
LINE_EXAMPLE = "6: A = sliding-window or 6: a blue star"
SCENE_EXAMPLE = "a red ball [10s] | a blue star [12#]"
MAX_LINES = 2000  # lines or scenes
WORDS = ("flush", "cut")  # lines that are one word
STREAM = "A"  # the name of the one stream of a run
ANY_ROLES = HeadRoles(1, ((),), np.zeros((1, 1)))  # roles with scores, for checks before a model is loaded

Streams = Mapping[str, Stream]
"""The streams of a run by name. The page calls them A and B; one alone is `STREAM`."""


class Change(ABC):
    """A change of running streams. Changes are frozen dataclasses that can be pickled."""

    @abstractmethod
    def apply(self, streams: Streams) -> str | None:
        """Request the change; it takes effect when the next chunk begins.

        Returns:
            A sentence for the user where only a part of the change is possible, None otherwise.

        Raises:
            ValueError: Where nothing of it is possible.
        """


@dataclass(frozen=True)
class SetPrompt(Change):
    """Give all streams another prompt.

    Args:
        prompt: The new prompt.
        recache: Recompute the cached frames under it, in the streams whose policy has one shared cache.
        cut: Begin another scene with it, in the streams whose policy knows cuts; called a cut in all of them.
    """

    prompt: str
    recache: bool = False
    cut: bool = False

    def apply(self, streams: Streams) -> str | None:
        without_cache = [name for name, stream in streams.items() if stream.next_policy.caches != "shared"]
        without_cuts = _without_cuts(streams)
        for name, stream in streams.items():
            stream.set_prompt(self.prompt, self.recache and name not in without_cache, self.cut)
        if self.recache and without_cache:
            there_is = "there is no shared cache to recompute"
            return f"{_named(streams, without_cache)} went on without re-cache: {there_is}."
        if self.cut and without_cuts:
            return f"{_named(streams, without_cuts)}: this policy has no cut; the prompt changes without one."
        return None


@dataclass(frozen=True)
class SetPolicy(Change):
    """Give one stream another policy; a run without that stream stays as it is.

    Args:
        stream: Name of the stream.
        policy: The new policy as text, `NAME` or `NAME:key=value,...`.
    """

    stream: str
    policy: str

    def apply(self, streams: Streams) -> None:
        if self.stream in streams:
            streams[self.stream].set_policy(policies.parse(self.policy))


@dataclass(frozen=True)
class SetRoles(Change):
    """Give all streams other head roles; refused where no running policy uses head roles."""

    roles: HeadRoles

    def apply(self, streams: Streams) -> None:
        running = [(stream, policy) for stream in streams.values() for policy in (stream.policy, stream.next_policy)]
        if all(policy.groups(stream.geometry, self.roles) is None for stream, policy in running):
            raise ValueError("no running policy uses head roles; try forcing-kv")
        for stream in streams.values():
            stream.set_roles(self.roles)


@dataclass(frozen=True)
class SetThreshold(Change):
    """Split the head scores of all streams at another threshold: heads that score at least this are static.

    Args:
        threshold: 0 to 1.
    """

    threshold: float

    def apply(self, streams: Streams) -> None:
        roles = next(iter(streams.values())).roles
        SetRoles(at_threshold(roles, self.threshold)).apply(streams)


@dataclass(frozen=True)
class SetHeads(Change):
    """Give single heads of all streams another role.

    Args:
        heads: Layer and head of each, and its new role.
    """

    heads: tuple[tuple[Head, Role], ...]

    def apply(self, streams: Streams) -> None:
        roles = next(iter(streams.values())).roles
        if roles is None:
            raise ValueError("this model's heads have no roles to change; profile it first")
        SetRoles(self.of(roles)).apply(streams)

    def of(self, roles: HeadRoles) -> HeadRoles:
        """Return roles with these heads changed."""
        for (layer, head), role in self.heads:
            flipped = roles.flipped(layer, head)
            if head in flipped.heads(role)[layer]:
                roles = flipped
        return roles


@dataclass(frozen=True)
class SilenceHead(Change):
    """Let one more head of a stream attend only to the current chunk; its cached keys are dropped.

    Args:
        stream: Name of the stream; a run without it stays as it is.
        head: Layer and head.
    """

    stream: str
    head: Head

    def apply(self, streams: Streams) -> None:
        if self.stream in streams:
            streams[self.stream].set_policy(silenced(streams[self.stream].next_policy, self.head))


@dataclass(frozen=True)
class Flush(Change):
    """Let the caches of all streams forget everything but the first frame and the two newest ones."""

    def apply(self, streams: Streams) -> str | None:
        without_cache = [name for name, stream in streams.items() if stream.next_policy.caches == "none"]
        if len(without_cache) == len(streams):
            raise ValueError(f"{_named(streams, without_cache)} has no cache to flush")
        for name, stream in streams.items():
            if name not in without_cache:
                stream.flush()
        return f"{_named(streams, without_cache)} went on: there is no cache to flush." if without_cache else None


@dataclass(frozen=True)
class Cut(Change):
    """Begin another scene under the same prompt, in the streams whose policy knows cuts."""

    def apply(self, streams: Streams) -> str | None:
        without_cuts = _without_cuts(streams)
        if len(without_cuts) == len(streams):
            raise ValueError("no running policy has a cut; try infinity-rope")
        for name, stream in streams.items():
            if name not in without_cuts:
                stream.cut()
        return f"{_named(streams, without_cuts)} went on: this policy has no cut." if without_cuts else None


@dataclass(frozen=True)
class SetSteps(Change):
    """Give all streams another number of denoising steps, except those that already have a cache for each step.

    Args:
        steps: 1 to the number of the model's steps.
    """

    steps: int

    def apply(self, streams: Streams) -> str | None:
        begun = {name: stream for name, stream in streams.items() if stream.index}
        per_step = [name for name, stream in begun.items() if stream.next_policy.caches == "per-step"]
        for name, stream in streams.items():
            if name not in per_step or len(per_step) == len(streams):
                stream.set_steps(self.steps)
        return f"{_named(streams, per_step)} went on: there is a cache for each step." if per_step else None


def _without_cuts(streams: Streams) -> list[str]:
    return [name for name, stream in streams.items() if not stream.next_policy.knows_cuts]


def _named(streams: Streams, names: Iterable[str]) -> str:
    return " and ".join(f"{name} ({streams[name].next_policy.name})" for name in names)


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

    def check_fits(self, chunks: int, streams: Collection[str]) -> None:
        """Check the cues against a run.

        Args:
            chunks: Length of the run in chunks.
            streams: Names of the streams that may be given another policy.

        Raises:
            ValueError: A cue comes after the end, or gives another policy to a stream that may have none.
        """
        for cue in self.cues:
            if cue.chunk >= chunks:
                raise ValueError(f"chunk {cue.chunk + 1} comes after the last of {chunks}")
            if isinstance(cue.change, SetPolicy) and cue.change.stream not in streams:
                allowed = f"only {', '.join(streams)} can" if streams else "each stream keeps its policy here"
                line = f"{cue.chunk + 1}: {write_change(cue.change)}"
                raise ValueError(f"{line!r} gives stream {cue.change.stream} another policy; {allowed}")

    def with_recache(self) -> Storyboard:
        """The same storyboard with re-cache at every new prompt, except at cuts."""
        return replace(self, cues=tuple(_recached(cue) for cue in self.cues))


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
                cues.append(Cue(chunk, _change(what, roles)))
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


def write_change(change: Change) -> str:
    """Write the part of a line after its number. Raises ValueError for a change that has no line."""
    if isinstance(change, SetPrompt):
        prompt = " ".join(change.prompt.split())
        if change.recache or change.cut:
            return f"{'cut' if change.cut else 're-cache'} = {prompt}"
        is_other = prompt in WORDS or KEYED.fullmatch(prompt) or _is_policy(prompt)
        return f"prompt = {prompt}" if is_other else prompt
    if isinstance(change, SetPolicy):
        return f"{change.stream} = {change.policy}"
    if isinstance(change, SetThreshold):
        return f"threshold = {change.threshold}"
    if isinstance(change, SetHeads):
        return "heads = " + ", ".join(f"{layer}.{head} {role}" for (layer, head), role in change.heads)
    if isinstance(change, SetSteps):
        return f"steps = {change.steps}"
    if isinstance(change, Flush | Cut):
        return type(change).__name__.lower()
    raise ValueError(f"a storyboard has no line for {type(change).__name__}")


def at_threshold(roles: HeadRoles | None, threshold: float) -> HeadRoles:
    """Split the scores of a model's roles at another threshold. Raises ValueError without scores and beyond 0 to 1."""
    if roles is None:
        raise ValueError("this model's heads carry no scores, so no threshold can split them; profile it first")
    return roles.at_threshold(threshold)


def happened(streams: Streams, chunks: Mapping[str, Chunk], before: Collection[str] = ()) -> list[str]:
    """Tell what was changed before these chunks of a run, as storyboard lines without their number.

    The number of very many heads with other roles is told as `roles: ...`, which cannot be read back.

    Args:
        streams: By name.
        chunks: Of some or all streams, by name.
        before: What was told of the same chunk of streams that had it earlier; told again.
    """
    recached = any(
        chunk.timings.rebuild > 0 and streams[name].policy.caches == "shared" for name, chunk in chunks.items()
    )
    lines = [_line(event, name, streams[name], recached) for name, chunk in chunks.items() for event in chunk.events]
    told = dict.fromkeys([*before, *lines])
    for line in [line for line in told if line.startswith("re-cache = ")]:  # of another stream, without a re-cache
        told.pop(write_change(SetPrompt(line.removeprefix("re-cache = "))), None)
    return sorted(
        told, key=lambda line: line.startswith(TELLS_ROLES)
    )  # after the policy without which they are refused


def _line(event: str, name: str, stream: Stream, recached: bool) -> str:
    kind, _, what = event.partition(": ")
    if event in WORDS:
        return event
    if kind in ("prompt", "cut"):
        return write_change(SetPrompt(what, recached and kind != "cut", kind == "cut"))
    if kind == "policy":
        return write_change(SetPolicy(name, policies.write(stream.policy)))
    if kind == "steps":
        return write_change(SetSteps(int(what)))
    threshold = stream.roles.threshold if stream.roles else None
    if threshold is not None:
        return write_change(SetThreshold(threshold))
    return write_change(_heads(what)) if ROLE.match(what) else event


def _change(what: str, roles: HeadRoles | None) -> Change:
    """Read the part of a line after its number."""
    if what in WORDS:
        return Flush() if what == "flush" else Cut()
    found = KEYED.fullmatch(what)
    key, value = found.groups() if found else ("prompt", what)
    if not found and _is_policy(what):
        raise ValueError(
            f"{what!r} is a policy; write A = {what} or B = {what}, or prompt = {what} to use it as a prompt"
        )
    if key in ("prompt", "re-cache", "cut"):
        return SetPrompt(check_prompt(value), recache=key == "re-cache", cut=key == "cut")
    if key == "threshold":
        threshold = _number(value)
        at_threshold(roles, threshold)
        return SetThreshold(threshold)
    if key == "heads":
        return _heads(value)
    if key == "steps":
        if not re.fullmatch("[1-9]", value):
            raise ValueError(f"{value!r:.40} is no number of denoising steps, as in steps = 2")
        return SetSteps(int(value))
    policies.parse(value)
    return SetPolicy(key, value)


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


def _heads(text: str) -> SetHeads:
    found = [(part, ROLE.fullmatch(part)) for part in text.split(",")]
    if unread := [part for part, match in found if match is None]:
        raise ValueError(f"{unread[0].strip()!r:.40} should be LAYER.HEAD and its role, as in 3.2 dynamic")
    roles = {(int(match[1]), int(match[2])): cast(Role, match[3]) for _, match in found if match}
    return SetHeads(tuple(roles.items()))


def _recached(cue: Cue) -> Cue:
    if not isinstance(cue.change, SetPrompt) or cue.cut:
        return cue
    return replace(cue, change=replace(cue.change, recache=True))


def _is_policy(text: str) -> bool:
    try:
        return bool(policies.parse(text))
    except ValueError:
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
