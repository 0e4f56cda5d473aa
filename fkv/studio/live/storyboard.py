"""A storyboard: what changes at which chunk of a run, a line each, as the page, the timeline and permalinks write it.

    6: a blue star drifting over the sea       another prompt
    9: re-cache = a pink box in the city       another prompt, under which the held frames are computed anew
    12: A = sliding-window                     another policy for one stream
    15: threshold = 0.7                        other head roles: static from that score on

Chunks are counted from 1, as on the timeline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fkv import policies
from fkv.commands.stream import at_chunk
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream, check_chunks, check_prompt

from . import changes
from .changes import Change

LINE = re.compile(r"(prompt|re-cache|A|B|threshold)\s*=\s*(.+)", re.DOTALL)


@dataclass(frozen=True)
class Cue:
    """A change and the index of the chunk that it comes before, counted from 0."""

    chunk: int
    change: Change


def parse(text: str, roles: HeadRoles | None = None, chunks: int | None = None) -> tuple[Cue, ...]:
    """The cues of a storyboard. roles : the model's, whose scores a threshold cuts. chunks : length of the run, None if endless.

    Raises ValueError that names the line which cannot be read or comes after the end.
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


def change(what: str, roles: HeadRoles | None) -> Change:
    """What a line asks for after its number. Raises ValueError when that cannot be done with any stream."""
    found = LINE.fullmatch(what)
    key, value = found.groups() if found else ("prompt", what)
    if not found and _is_policy(what):
        raise ValueError(
            f"{what!r} is a policy; write A = {what} or B = {what}, or prompt = {what} if it is what to paint"
        )
    if key in ("prompt", "re-cache"):
        return changes.prompt(check_prompt(value), recache=key == "re-cache")
    if key == "threshold":
        return changes.roles(at_threshold(roles, _number(value)))
    policies.parse(value)
    return changes.policy(key, value)


def at_threshold(roles: HeadRoles | None, threshold: float) -> HeadRoles:
    """The roles that follow from the same scores at another threshold. Raises ValueError without scores or beyond 0 to 1."""
    return (roles or HeadRoles(1, ((),))).at_threshold(threshold)


def happened(streams: Mapping[str, Stream], chunks: Mapping[str, Chunk]) -> list[str]:
    """What was changed before these chunks of a run, as lines without their number. Head roles that no threshold gives are
    told as `roles: ...`, which is no line."""
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
    threshold = stream.roles.threshold
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
