"""A change as a line, without the number of its chunk."""

from __future__ import annotations

import re
from typing import cast

from fkv import policies
from fkv.roles import HeadRoles, Role
from fkv.stream import check_prompt

from .changes import (
    Change,
    Cut,
    Flush,
    SetHeads,
    SetPolicy,
    SetPrompt,
    SetSteps,
    SetThreshold,
    at_threshold,
)

KEYED = re.compile(r"(prompt|re-cache|cut|A|B|threshold|heads|steps)\s*=\s*(.+)", re.DOTALL)
ROLE = re.compile(r"\s*(\d{1,4})\.(\d{1,4})\s+(static|dynamic)\s*")
WORDS = ("flush", "cut")  # lines that are one word


def write_change(change: Change) -> str:
    """Write the part of a line after its number. Raises ValueError for a change that has no line."""
    if isinstance(change, SetPrompt):
        prompt = " ".join(change.prompt.split())
        if change.recache or change.cut:
            return f"{'cut' if change.cut else 're-cache'} = {prompt}"
        is_other = prompt in WORDS or KEYED.fullmatch(prompt) or _is_policy(prompt)
        return f"prompt = {prompt}" if is_other else prompt
    if isinstance(change, SetPolicy):
        return f"{change.stream} = {change.policy}"
    if isinstance(change, SetThreshold):
        return f"threshold = {change.threshold}"
    if isinstance(change, SetHeads):
        return "heads = " + ", ".join(f"{layer}.{head} {role}" for (layer, head), role in change.heads)
    if isinstance(change, SetSteps):
        return f"steps = {change.steps}"
    if isinstance(change, Flush | Cut):
        return type(change).__name__.lower()
    raise ValueError(f"a storyboard has no line for {type(change).__name__}")


def read_change(what: str, roles: HeadRoles | None) -> Change:
    """Read the part of a line after its number. Raises ValueError, with what would be right, for any other text."""
    if what in WORDS:
        return Flush() if what == "flush" else Cut()
    found = KEYED.fullmatch(what)
    key, value = found.groups() if found else ("prompt", what)
    if not found and _is_policy(what):
        raise ValueError(
            f"{what!r} is a policy; write A = {what} or B = {what}, or prompt = {what} to use it as a prompt"
        )
    if key in ("prompt", "re-cache", "cut"):
        return SetPrompt(check_prompt(value), recache=key == "re-cache", cut=key == "cut")
    if key == "threshold":
        threshold = _number(value)
        at_threshold(roles, threshold)
        return SetThreshold(threshold)
    if key == "heads":
        return read_heads(value)
    if key == "steps":
        if not re.fullmatch("[1-9][0-9]?", value):
            raise ValueError(f"{value!r:.40} is no number of denoising steps, as in steps = 2")
        return SetSteps(int(value))
    policies.parse(value)
    return SetPolicy(key, value)


def read_heads(text: str) -> SetHeads:
    """Read `LAYER.HEAD ROLE`, several with commas between them. Raises ValueError for any other text."""
    found = [(part, ROLE.fullmatch(part)) for part in text.split(",")]
    if unread := [part for part, match in found if match is None]:
        raise ValueError(f"{unread[0].strip()!r:.40} should be LAYER.HEAD and its role, as in 3.2 dynamic")
    roles = {(int(match[1]), int(match[2])): cast(Role, match[3]) for _, match in found if match}
    return SetHeads(tuple(roles.items()))


def _is_policy(text: str) -> bool:
    try:
        return bool(policies.parse(text))
    except ValueError:
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
