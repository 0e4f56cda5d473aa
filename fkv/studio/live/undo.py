"""Take back the last change of a run: its settings as the visitor knows them, and as they were before each change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fkv import policies
from fkv.models.base import VideoModel
from fkv.policies.silenced import silenced
from fkv.roles import HeadRoles
from fkv.storyboard import (
    Change,
    SetHeads,
    SetPolicy,
    SetPrompt,
    SetRoles,
    SetSteps,
    SetThreshold,
    SilenceHead,
    at_threshold,
)
from fkv.stream import check_prompt

from .plan import Plan

MOST_UNDONE = 64  # changes that can be taken back; older ones are forgotten


@dataclass(frozen=True)
class Settings:
    """What can be changed while a run goes on.

    Args:
        prompt: What the video shows.
        policies: The policy of each stream, as text.
        roles: Head roles.
        steps: Denoising steps.
    """

    prompt: str
    policies: dict[str, str]
    roles: HeadRoles | None
    steps: int

    @classmethod
    def of(cls, plan: Plan, model: VideoModel) -> Settings:
        """The settings with which a run begins."""
        steps = len(plan.sampling.of(model).schedule.sigmas)
        return cls(plan.prompt, dict(plan.texts), plan.roles or model.roles, steps)

    def after(self, change: Change) -> Settings:
        """The settings once a change holds; the same for one that leaves nothing to restore, such as a flush.

        Raises:
            ValueError: The change cannot be made.
        """
        if isinstance(change, SetPrompt):
            return replace(self, prompt=check_prompt(change.prompt))
        if isinstance(change, SetPolicy):
            return self._with_policy(change.stream, change.policy)
        if isinstance(change, SilenceHead) and change.stream in self.policies:
            policy = silenced(policies.parse(self.policies[change.stream]), change.head)
            return self._with_policy(change.stream, policies.write(policy))
        if isinstance(change, SetRoles):
            return replace(self, roles=change.roles)
        if isinstance(change, SetThreshold):
            return replace(self, roles=at_threshold(self.roles, change.threshold))
        if isinstance(change, SetHeads) and self.roles:
            return replace(self, roles=change.of(self.roles))
        if isinstance(change, SetSteps):
            return replace(self, steps=change.steps)
        return self

    def _with_policy(self, stream: str, policy: str) -> Settings:
        policies.parse(policy)
        return replace(self, policies=self.policies | {stream: policy}) if stream in self.policies else self

    def changes_to(self, other: Settings) -> Iterator[Change]:
        """The changes that lead from these settings to others."""
        if other.prompt != self.prompt:
            yield SetPrompt(other.prompt)
        for stream, policy in other.policies.items():
            if policy != self.policies[stream]:
                yield SetPolicy(stream, policy)
        if other.roles != self.roles and other.roles:
            yield SetRoles(other.roles)
        if other.steps != self.steps:
            yield SetSteps(other.steps)


@dataclass
class History:
    """The settings of a run, and those before each change of it.

    Args:
        now: The settings with which the run begins.
    """

    now: Settings
    _before: deque[Settings] = field(default_factory=lambda: deque(maxlen=MOST_UNDONE))

    def note(self, change: Change) -> None:
        """Note a change; one that cannot be made or changes nothing leaves nothing to take back."""
        try:
            after = self.now.after(change)
        except ValueError:
            return
        if after != self.now:
            self._before.append(self.now)
            self.now = after

    def undo(self) -> list[Change]:
        """The changes that take the last one back; [] where there is none."""
        if not self._before:
            return []
        before = self._before.pop()
        changes = list(self.now.changes_to(before))
        self.now = before
        return changes
