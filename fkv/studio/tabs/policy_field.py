"""Text fields that name a policy, and what the controls beside them say: re-cache, threshold, streams."""

from __future__ import annotations

from typing import Any

from fkv.models.base import VideoModel
from fkv.policies import Policy, parse
from fkv.storyboard import at_threshold
from fkv.studio.live import forms


def read(text: Any) -> Policy | None:
    """The policy in a field; None where it holds none, such as a field that was cleared."""
    try:
        return parse(forms.text(text, "the policy"))
    except ValueError:
        return None


def split_info(model: VideoModel, threshold: float | None) -> str:
    """How a threshold splits the heads, in words."""
    if threshold is None or model.roles is None or model.roles.scores is None:
        return "this model's heads have no scores; `fkv profile` makes some"
    static = sum(map(len, at_threshold(model.roles, threshold).static))
    dynamic = model.roles.scores.size - static
    return f"heads with at least this score are static: {static} static, {dynamic} dynamic"


def recache_info(a: Any, b: Any) -> str:
    """What re-cache does under the policies of two fields, in words."""
    policies = [(name, read(text)) for name, text in (("A", a), ("B", b))]
    without = [f"{name} ({policy.name})" for name, policy in policies if policy and policy.caches != "shared"]
    excluded = f"; not available for {' and '.join(without)}: no shared cache" if without else ""
    return f"recompute the cached frames under the new prompt{excluded}"


def views(a: Any, b: Any) -> list[tuple[str, str]]:
    """Choices of what to stream: A alone, B alone, or both; a name for each, and its value."""
    policies = {"A": read(a), "B": read(b)}
    names = [policy.name if policy else stream for stream, policy in policies.items()]
    first, second = names if names[0] != names[1] else ("A", "B")
    return [(first, "A"), (second, "B"), ("Both", "AB")]
