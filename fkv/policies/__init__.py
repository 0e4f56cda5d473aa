"""Cache policies, one file each.

To add one: write a frozen dataclass that derives from `Policy`, give it `name` and `help`, override `keep_mask` (a
boolean mask over the pages of a head group, called once per chunk) and list the class in `POLICIES`. Its fields become
parameters of the command line and of the page, and the test matrix in `tests/test_policies.py` runs it. A policy that
treats heads differently also overrides `groups`.
"""

from __future__ import annotations

import dataclasses
import typing

from .ablations import NoAnchor, NoDynamic, RandomRoles
from .base import ChunkState, Policy, evict
from .dummy_forcing import DummyForcing
from .forcing_kv import ForcingKV
from .full import Full
from .per_step import PerStep
from .recompute import Recompute
from .silenced import WITHOUT, read_heads, silence, write_heads
from .sliding_window import SlidingWindow

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (Full, SlidingWindow, ForcingKV, DummyForcing, RandomRoles, NoAnchor, NoDynamic, Recompute, PerStep)
}


FOR_ALL = "fp8=true", "keys and values are stored in 8 bits, half of the memory; a CPU is slower to read them"
"""The parameter that every policy has, and what it does."""


def parameters(policy: Policy | type[Policy]) -> list[dataclasses.Field]:
    """The parameters of a policy, its own before the one that all have."""
    return sorted(dataclasses.fields(policy), key=lambda field: field.kw_only)


def defaults(policy: type[Policy]) -> list[str]:
    """The parameters that a policy has of its own, as one writes their defaults."""
    return [f"{field.name}={field.default}" for field in parameters(policy) if not field.kw_only]


def make(name: str, **given: object) -> Policy:
    """A policy by name with some of its parameters set.

    Raises ValueError for an unknown name or parameter or a value of the wrong kind, and says what there is.
    """
    if "," in name:
        raise ValueError(f"{name!r} are several policies; name one")
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    policy = POLICIES[name]
    hints, known = typing.get_type_hints(policy), [field.name for field in parameters(policy)]
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"policy {name!r} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        kinds = typing.get_args(hints[key]) or (hints[key],)
        if float in kinds and isinstance(value, int) and int not in kinds:
            value = given[key] = float(value)
        if not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds):
            raise ValueError(
                f"{key} of policy {name!r} must be {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}"
            )
    return policy(**given)


def _value(key: str, text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise ValueError(f"{key} must be a number, true or false, not {text!r}")


def parse(text: str) -> Policy:
    """A policy from `name` or `name:key=value,key=value`, as the command line and permalinks write it; with ` without 3.2+4.1`
    behind it, these heads are silenced."""
    text, silenced, heads = text.partition(WITHOUT.rstrip())
    if silenced:
        return silence(parse(text), read_heads(heads))
    name, _, rest = text.partition(":")
    given: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} should be written key=value, as in forcing-kv:retention=0.5")
        if key in given:
            raise ValueError(f"{key} is given twice in {text!r}")
        given[key] = _value(key, value)
    return make(name, **given)


def split(text: str) -> list[str]:
    """Several policies from one comma-separated text; `key=value` parts belong to the policy before them."""
    parts: list[str] = []
    for part in text.split(","):
        if parts and "=" in part and ":" not in part:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def write(policy: Policy) -> str:
    """Write a policy as `parse` reads it back: its name and the parameters that differ from their defaults."""
    base = policy.unwrapped
    changed = [(f.name, getattr(base, f.name)) for f in parameters(base) if getattr(base, f.name) != f.default]
    rest = ",".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changed)
    text = f"{base.name}:{rest}" if rest else base.name
    return f"{text}{WITHOUT}{write_heads(policy.silenced_heads)}" if policy.silenced_heads else text


__all__ = [
    "FOR_ALL",
    "POLICIES",
    "ChunkState",
    "Policy",
    "defaults",
    "evict",
    "make",
    "parameters",
    "parse",
    "split",
    "write",
]
