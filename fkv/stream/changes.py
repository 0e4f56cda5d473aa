"""Changes of a running stream. They wait in `Pending` and come into force with the next chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from fkv.cache import KVCache, regrouped
from fkv.models.base import VideoModel
from fkv.policies import ChunkState, Policy, evict
from fkv.roles import HeadRoles

from .chunk import Timer
from .recache import recache as recached
from .state import StreamState

Change = Callable[[StreamState, Timer], str | None]
"""Puts a change into force. Returns it as an event of the chunk, None where nothing changed."""


@dataclass
class Pending:
    """What waits for the next chunk: its policy and roles, other changes of the cache, and its text.

    A later policy or text replaces one that waits. They are applied in the order of these fields, whatever the order
    in which they were requested, so that the events of a chunk are enough to repeat it.
    """

    policy: Policy
    roles: HeadRoles | None
    changes: list[Change] = field(default_factory=list)
    text: Change | None = None

    def apply(self, state: StreamState, timer: Timer) -> tuple[str, ...]:
        """Put everything into force; nothing waits any longer. Returns what changed, as events of the chunk."""
        events: list[str | None] = [*_change_policy(state, self.policy, self.roles)]
        changes = [*self.changes, *filter(None, [self.text])]
        self.changes.clear()
        self.text = None
        events += [change(state, timer) for change in changes]
        return tuple(filter(None, events))


def _change_policy(state: StreamState, policy: Policy, roles: HeadRoles | None) -> list[str]:
    """Go on under a policy and roles. Returns what changed, as events of the chunk."""
    old_policy, old_roles = state.policy, state.roles
    state.policy, state.roles = policy, roles
    if policy == old_policy and roles == old_roles:
        return []
    groups = policy.groups(state.geometry, roles)
    if policy != old_policy or groups != policy.groups(state.geometry, old_roles):
        state.caches = [_converted(state, cache) for cache in state.caches] if state.index else state.new_caches()
    events = [f"policy: {policy.name}"] if policy != old_policy or old_roles is None else []
    if roles is not None and old_roles is not None and roles != old_roles:
        events.append(f"roles: {roles.changes(old_roles)}")
    return events


def _converted(state: StreamState, cache: KVCache) -> KVCache:
    """What the policy in force would have kept of a cache."""
    policy = state.policy
    groups = policy.groups(state.geometry, state.roles) or cache.heads
    stored = policy.stored(state.model.transformer.dtype)
    cache = regrouped(cache, groups, policy.segments_of(state.geometry), stored)
    cache = evict(policy, ChunkState(state.index - 1, state.frames(state.index - 1), cache))
    return regrouped(cache, groups, cache.segments)


def change_prompt(
    state: StreamState, timer: Timer, *, prompt: str, recache: bool, cut: bool, opening: str
) -> str | None:
    """Go on with another prompt, see `Stream.set_prompt`; `opening` is the one that the stream was made with."""
    with timer.stage("text"):
        state.text = state.model.transformer.prepare_text(state.model.encode(prompt))
    recache = recache and state.index > 0
    unchanged = prompt == (state.prompt or opening) and not recache and not cut
    state.prompt = prompt
    if unchanged:
        return None
    if cut and state.policy.knows_cuts:
        change_scene(state, timer)
    if recache:
        with timer.stage("rebuild"):
            state.caches = [recached(state)]
    return f"{'cut' if cut else 'prompt'}: {prompt}"


def change_text(state: StreamState, timer: Timer, *, text: Tensor, recache: bool) -> str:
    """Go on with other text embeddings, see `Stream.set_text`."""
    with timer.stage("text"):
        state.text = state.model.transformer.prepare_text(text)
    if recache and state.index:
        with timer.stage("rebuild"):
            state.caches = [recached(state)]
    return "text"


def change_steps(state: StreamState, timer: Timer, *, model: VideoModel) -> str | None:
    """Go on with the denoising steps of a model, see `Stream.set_steps`."""
    if model.schedule == state.model.schedule:
        return None
    state.model = model
    if state.index == 0:
        state.caches = state.new_caches()
    return f"steps: {len(model.schedule.sigmas)}"


def flush(state: StreamState, timer: Timer) -> str:
    """Forget everything but the first frame and the two newest ones, see `Stream.flush`."""
    for cache in state.caches:
        newest = max(cache.frames(), default=0)
        cache.evict({n: (g.pages.frame == 0) | (g.pages.frame > newest - 2) for n, g in cache.groups.items()})
    return "flush"


def change_scene(state: StreamState, timer: Timer) -> str:
    """Begin another scene, see `Stream.cut`."""
    state.marks |= {"cut"}
    return "cut"
