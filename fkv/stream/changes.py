"""Changes of a running stream. They wait in `Pending` and come into force with the next chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fkv.cache import KVCache, regrouped
from fkv.models.base import VideoModel
from fkv.policies import ChunkState, Policy, evict
from fkv.roles import HeadRoles
from fkv.transformer.passes import TextContext

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
    if policy == old_policy and roles is old_roles:
        return []
    same_policy, same_roles = policy == old_policy, roles == old_roles
    same_groups = same_policy and policy.groups(state.geometry, roles) == policy.groups(state.geometry, old_roles)
    if not same_groups:
        state.caches = [_converted(state, cache) for cache in state.caches] if state.index else state.new_caches()
    events = [] if same_policy and old_roles is not None else [f"policy: {policy.name}"]
    if roles is not None and old_roles is not None and not same_roles:
        events.append(f"roles: {roles.changes(old_roles)}")
    elif same_policy and not same_groups:
        events.append("roles: other classes")
    return events


def _converted(state: StreamState, cache: KVCache) -> KVCache:
    """What the policy in force would have kept of a cache."""
    policy = state.policy
    groups = policy.groups(state.geometry, state.roles) or cache.heads
    stored = policy.stored(state.model.transformer.dtype)
    cache = regrouped(cache, groups, policy.segments_of(state.geometry), stored)
    seen = ChunkState(state.index - 1, state.frames(state.index - 1), cache)
    cache = evict(policy, seen)
    _align(policy, replace(seen, cache=cache))
    return regrouped(cache, groups, cache.segments)


def _align(policy: Policy, newest: ChunkState) -> None:
    """Store cached frames where the policy reads them: the one before may have stored them within a window."""
    cache, frames = newest.cache, newest.frames
    positions = policy.chunk_positions(newest)
    cached = cache.frames()
    if not cached or positions is not None and policy.overrides("reads"):
        return  # it says itself where it reads them
    steps = cached[-1] + (positions or frames)[-1] - frames[-1] - cache.positions_of(cached[-1:])[0]
    if steps:
        cache.reposition(cached, steps)


def change_prompt(
    state: StreamState, timer: Timer, *, prompt: str, recache: bool, cut: bool, opening: str
) -> str | None:
    """Go on with another prompt, see `Stream.set_prompt`; `opening` is the one that the stream was made with."""
    with timer.stage("text"):
        state.text = state.prepare_text(state.model.encode(prompt))
    recache = recache and state.index > 0
    unchanged = prompt == (state.prompt if state.index else opening) and not recache and not cut
    state.prompt = prompt
    if unchanged:
        return None
    if cut and state.policy.knows_cuts:
        change_scene(state, timer)
    if recache:
        with timer.stage("rebuild"):
            state.caches = [recached(state)]
    return f"{'cut' if cut else 'prompt'}: {prompt}"


def change_text(state: StreamState, timer: Timer, *, text: TextContext, recache: bool) -> str:
    """Go on with other text embeddings, see `Stream.set_text`."""
    state.text = text
    state.prompt = ""
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
