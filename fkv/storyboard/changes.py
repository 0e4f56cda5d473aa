"""Changes of running streams, one dataclass each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fkv import policies
from fkv.policies.silenced import Head, silenced
from fkv.roles import HeadRoles, Role
from fkv.stream import Stream

STREAM = "A"  # the name of the one stream of a run

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
        roles = next(iter(streams.values())).next_roles
        SetRoles(at_threshold(roles, self.threshold)).apply(streams)


@dataclass(frozen=True)
class SetHeads(Change):
    """Give single heads of all streams another role.

    Args:
        heads: Layer and head of each, and its new role.
    """

    heads: tuple[tuple[Head, Role], ...]

    def apply(self, streams: Streams) -> None:
        roles = next(iter(streams.values())).next_roles
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


def at_threshold(roles: HeadRoles | None, threshold: float) -> HeadRoles:
    """Split the scores of a model's roles at another threshold. Raises ValueError without scores and beyond 0 to 1."""
    if roles is None:
        raise ValueError("this model's heads carry no scores, so no threshold can split them; profile it first")
    return roles.at_threshold(threshold)
