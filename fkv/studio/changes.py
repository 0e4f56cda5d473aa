"""What a visitor may change of streams that run; each change is applied when the next chunk begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .. import policies
from ..roles import HeadRoles
from ..stream import Stream

Change = Callable[[Mapping[str, Stream]], None]
"""Passes a change on to the streams of a run, by name. Raises ValueError with a sentence for the visitor."""


def prompt(text: str, recache: bool = False) -> Change:
    """Another prompt for all streams; with `recache` the held frames are recomputed where the policy can."""

    def change(streams: Mapping[str, Stream]) -> None:
        for stream in streams.values():
            stream.set_prompt(text, recache and stream.policy.caches == "shared")

    return change


def policy(name: str, text: str) -> Change:
    """Another policy, written as on the command line, for one stream; nothing where the run has no such stream."""

    def change(streams: Mapping[str, Stream]) -> None:
        if name in streams:
            streams[name].set_policy(policies.parse(text))

    return change


def roles(new: HeadRoles) -> Change:
    """Other head roles for every stream whose policy goes by them."""

    def change(streams: Mapping[str, Stream]) -> None:
        for stream in streams.values():
            stream.set_roles(new)

    return change
