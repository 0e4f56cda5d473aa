"""The timeline of a run: which change comes before which chunk, as the page, the command line and permalinks write it.

    6: a blue star drifting over the sea       another prompt
    9: re-cache = a pink box in the city       another prompt, and the cache recomputed under it
    12: A = sliding-window                     another policy for one stream
    15: threshold = 0.7                        other head roles: static from that score on

Text counts chunks from 1, as the page's timeline does; a `Cue` counts them from 0.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from . import policies
from .policies.silenced import Head, silenced
from .roles import HeadRoles
from .stream import Chunk, Stream, check_chunks, check_prompt

LINE = re.compile(r"(prompt|re-cache|A|B|threshold)\s*=\s*(.+)", re.DOTALL)

Streams = Mapping[str, Stream]
"""The streams of a run by name; the page calls them A and B."""


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
    """

    prompt: str
    recache: bool = False

    def apply(self, streams: Streams) -> str | None:
        skipped = [f"{name} ({each.policy.name})" for name, each in streams.items() if each.policy.caches != "shared"]
        for stream in streams.values():
            stream.set_prompt(self.prompt, self.recache and stream.policy.caches == "shared")
        if not self.recache or not skipped:
            return None
        return f"{' and '.join(skipped)} went on without re-cache: there is no shared cache to recompute."


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
        if all(stream.policy.groups(stream.geometry, self.roles) is None for stream in streams.values()):
            raise ValueError("no running policy uses head roles; try forcing-kv")
        for stream in streams.values():
            stream.set_roles(self.roles)


@dataclass(frozen=True)
class SilenceHead(Change):
    """Let one more head of a stream attend only to the current chunk. Its cached keys are dropped for the rest of the run."""

    stream: str
    head: Head

    def apply(self, streams: Streams) -> None:
        if self.stream in streams:
            streams[self.stream].set_policy(silenced(streams[self.stream].coming, self.head))


@dataclass(frozen=True)
class Cue:
    """A change and the index of the chunk before which it is applied, counted from 0."""

    chunk: int
    change: Change


def parse(text: str, roles: HeadRoles | None = None, chunks: int | None = None) -> tuple[Cue, ...]:
    """Read a storyboard.

    Args:
        text: One change a line.
        roles: The model's head roles, whose scores a threshold splits.
        chunks: Length of the run in chunks, None if it is endless.

    Raises:
        ValueError: Names the line that cannot be read or comes after the end.
    """
    cues = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                chunk, what = at_chunk(line.strip(), "6: A = sliding-window or 6: a blue star")
                if chunks is not None and check_chunks(chunk) > chunks:
                    raise ValueError(f"chunk {chunk} comes after the last of {chunks}")
                cues.append(Cue(check_chunks(chunk) - 1, change(what.strip(), roles)))
            except ValueError as error:
                raise ValueError(f"line {number} of the storyboard: {error}") from None
    return tuple(cues)


def at_chunk(text: str, example: str = "5:forcing-kv or 5:a blue star") -> tuple[int, str]:
    """Split CHUNK:WHAT into the chunk's number and the rest. Raises ValueError, with an example, for anything else."""
    chunk, colon, what = text.partition(":")
    if not colon or not chunk.isdecimal() or not what:
        raise ValueError(f"{text!r} should be written CHUNK:WHAT, as in {example}")
    return int(chunk), what


def change(what: str, roles: HeadRoles | None) -> Change:
    """Read the part of a line after its number. Raises ValueError for what no stream can do."""
    found = LINE.fullmatch(what)
    key, value = found.groups() if found else ("prompt", what)
    if not found and _is_policy(what):
        raise ValueError(
            f"{what!r} is a policy; write A = {what} or B = {what}, or prompt = {what} to use it as a prompt"
        )
    if key in ("prompt", "re-cache"):
        return SetPrompt(check_prompt(value), recache=key == "re-cache")
    if key == "threshold":
        return SetRoles(at_threshold(roles, _number(value)))
    policies.parse(value)
    return SetPolicy(key, value)


def at_threshold(roles: HeadRoles | None, threshold: float) -> HeadRoles:
    """Split the scores of a model's roles at another threshold. Raises ValueError without scores and beyond 0 to 1."""
    if roles is None:
        raise ValueError("this model's heads carry no scores, so no threshold can split them; profile it first")
    return roles.at_threshold(threshold)


def happened(streams: Streams, chunks: Mapping[str, Chunk]) -> list[str]:
    """Tell what was changed before these chunks of a run, as storyboard lines without their number.

    Head roles that no threshold gives are told as `roles: ...`, which cannot be read back.
    """
    recached = any(
        chunk.timings.rebuild > 0 and streams[name].policy.caches == "shared" for name, chunk in chunks.items()
    )
    lines = [_line(event, name, streams[name], recached) for name, chunk in chunks.items() for event in chunk.events]
    return list(dict.fromkeys(lines))


def _line(event: str, name: str, stream: Stream, recached: bool) -> str:
    kind, _, what = event.partition(": ")
    if kind == "prompt":
        return f"re-cache = {what}" if recached else f"prompt = {what}" if LINE.fullmatch(what) else what
    if kind == "policy":
        return f"{name} = {policies.write(stream.policy)}"
    threshold = stream.roles.threshold if stream.roles else None
    return event if threshold is None else f"threshold = {threshold}"


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
