"""Changes of a run on their way to its streams, each of which comes to their chunk at its own time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from fkv.storyboard import Change, Streams
from fkv.stream import Stream


@dataclass
class _Waiting:
    """A change, the chunk before which it is applied, and the streams that have not come there."""

    change: Change
    chunk: int
    streams: set[str]


class Pending:
    """What was changed and not yet applied to all streams."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def add(self, change: Change, chunk: int, streams: Collection[str]) -> None:
        """Apply a change to streams when each of them comes to a chunk."""
        self._waiting.append(_Waiting(change, chunk, set(streams)))

    def apply(self, streams: Streams, ready: Collection[str]) -> list[str]:
        """Apply what is due.

        Args:
            streams: By name.
            ready: Those that generate nothing now.

        Returns:
            Sentences on what was not applied, or only in part.
        """
        said: list[str | None] = []
        for waiting in self._waiting:
            here = {name for name in waiting.streams.intersection(ready) if streams[name].index >= waiting.chunk}
            if not here:
                continue
            waiting.streams -= here
            others = {name: cast(Stream, _Bystander(stream)) for name, stream in streams.items() if name not in here}
            try:
                said.append(waiting.change.apply({name: others.get(name, stream) for name, stream in streams.items()}))
            except ValueError as error:
                said.append(f"Not applied: {error}.")
        self._waiting = [waiting for waiting in self._waiting if waiting.streams]
        return [sentence for sentence in dict.fromkeys(said) if sentence]


class _Bystander:
    """A stream as changes see it while they are applied to another one: it tells everything and does nothing."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._stream, name)
        return (lambda *_, **__: None) if callable(value) else value
