"""Text fields that name a policy, and what the controls beside them say: retention, re-cache, threshold, streams."""

from __future__ import annotations

import dataclasses
from typing import Any

from fkv.models.base import VideoModel
from fkv.policies import COMMON, POLICIES, Policy, assignment, own_parameters, parse, variant_of, write
from fkv.policies.silenced import silence
from fkv.storyboard import at_threshold
from fkv.studio.live import forms

SHORT_NAMES = {"forcing-kv": "Forcing-KV", "full": "Full"}


def read(text: Any) -> Policy | None:
    """The policy in a field; None where it holds none, such as a field that was cleared."""
    try:
        return parse(forms.text(text, "the policy"))
    except ValueError:
        return None


def unwrapped(policy: Policy | None) -> Policy | None:
    """The policy without the heads that are silenced under it."""
    return policy and policy.unwrapped


def retention(text: Any) -> dict[str, Any]:
    """How the retention slider stands for the policy in a field; disabled where the policy has no such parameter."""
    share = getattr(unwrapped(read(text)), "retention", None)
    if isinstance(share, float):
        info = "share of the previous chunk's segments that dynamic heads keep"
        return {"value": share, "interactive": True, "info": info}
    if share is None:
        return {"value": 0, "interactive": False, "info": "this policy has no retention parameter"}
    return {"value": 0, "interactive": False, "info": f"set in the text above to a number of segments: {share}"}


def with_retention(text: Any, share: float) -> str | None:
    """The policy of a field with another retention, as text; None where it has no such parameter."""
    policy = read(text)
    base = unwrapped(policy)
    if not hasattr(base, "retention"):
        return None
    base = dataclasses.replace(base, retention=float(share))
    return write(silence(base, policy.silenced_heads))


def split_info(model: VideoModel, threshold: float | None) -> str:
    """How a threshold splits the heads, in words."""
    if threshold is None or model.roles is None or model.roles.scores is None:
        return "this model's heads have no scores; profile it first"
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
    names = [SHORT_NAMES.get(policy.name, policy.name) if policy else stream for stream, policy in policies.items()]
    first, second = names if names[0] != names[1] else ("A", "B")
    return [(first, "A"), (second, "B"), ("Both", "AB")]


def policy_table() -> str:
    """Every policy and its parameters with their defaults, as Markdown."""
    common = "; ".join(f"`{parameter.name}`: {parameter.help}" for parameter in COMMON)
    rows = [
        f"Pick a policy, or write `name:parameter=value,parameter=value`. All policies have {common}.\n",
        "| policy | | parameters and their defaults |",
        "|-|-|-|",
    ]
    for policy in POLICIES.values():
        own = [f"`{assignment(each.name, each.default)}` {each.help}" for each in own_parameters(policy)]
        other = variant_of(policy)
        listed = [f"all of `{other}`", *own] if other else own
        rows.append(f"| `{policy.name}` | {policy.help} | {'<br>'.join(listed) or 'none'} |")
    return "\n".join(rows)
