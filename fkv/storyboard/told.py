"""Tell what was changed in a run, as storyboard lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fkv import policies
from fkv.stream import Chunk, Stream

from .changes import SetPolicy, SetPrompt, SetSteps, SetThreshold, Streams
from .lines import ROLE, WORDS, read_heads, write_change

TELLS_ROLES = ("threshold = ", "heads = ", "roles: ")  # how lines on head roles begin


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
    # Roles come after the policy without which they are refused.
    return sorted(told, key=lambda line: line.startswith(TELLS_ROLES))


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
    return write_change(read_heads(what)) if ROLE.match(what) else event
