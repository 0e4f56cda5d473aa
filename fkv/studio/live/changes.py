"""What a visitor may change of streams that run; each change is applied when the next chunk begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fkv import policies
from fkv.policies.silenced import Head, silenced
from fkv.roles import HeadRoles
from fkv.stream import Stream

Change = Callable[[Mapping[str, Stream]], str | None]
"""Passes a change on to the streams of a run, by name; picklable. Returns a sentence where only a part can be done, raises
ValueError with one where nothing can."""


def prompt(text: str, recache: bool = False) -> Change:
    """Another prompt for all streams; with `recache` the held frames are recomputed where the policy can."""
    return partial(_prompt, text, recache)


def policy(name: str, text: str) -> Change:
    """Another policy, written as on the command line, for one stream; nothing where the run has no such stream."""
    return partial(_policy, name, text)


def roles(new: HeadRoles) -> Change:
    """Other head roles for all streams; refused where no policy goes by them."""
    return partial(_roles, new)


def silence(name: str, head: Head) -> Change:
    """Take the history of one more head of a stream away. What it held is gone for this run."""
    return partial(_silence, name, head)


def _prompt(text: str, recache: bool, streams: Mapping[str, Stream]) -> str | None:
    bare = [f"{name} ({stream.policy.name})" for name, stream in streams.items() if stream.policy.caches != "shared"]
    for stream in streams.values():
        stream.set_prompt(text, recache and stream.policy.caches == "shared")
    return (
        f"{' and '.join(bare)} went on without re-cache: there is no shared cache to recompute."
        if recache and bare
        else None
    )


def _policy(name: str, text: str, streams: Mapping[str, Stream]) -> None:
    if name in streams:
        streams[name].set_policy(policies.parse(text))


def _roles(new: HeadRoles, streams: Mapping[str, Stream]) -> None:
    if all(stream.policy.groups(stream.geometry, new) is None for stream in streams.values()):
        raise ValueError("none of the policies that run goes by head roles; forcing-kv does")
    for stream in streams.values():
        stream.set_roles(new)


def _silence(name: str, head: Head, streams: Mapping[str, Stream]) -> None:
    if name in streams:
        streams[name].set_policy(silenced(streams[name].coming, head))
