"""Cache policies, one file each.

To add one: write a frozen dataclass that derives from `Policy`, give it `name` and `help`, override `keep_mask` (a
boolean mask over the pages of a head group, called once per chunk) and list the class in `POLICIES`. Its fields become
parameters of the command line and of the page, and the test matrix in `tests/test_policies.py` runs it. A policy that
treats heads differently also overrides `groups`, and `past_kind` where its pages have purposes of their own.
"""

from __future__ import annotations

from typing import Any

from fkv.pages import Geometry
from fkv.parameters import Parameter, defaults, describe, schema
from fkv.roles import HeadRoles

from .ablations import NoAnchor, NoDynamic, RandomRoles
from .base import ChunkState, PassReads, Policy, evict, keeper, page_kinds
from .ca2_vdm import Ca2Vdm
from .commit import COMMIT, Commit
from .context_forcing import ContextForcing
from .deep_forcing import DeepForcing
from .dummy_forcing import DummyForcing
from .ema_sink import EmaSink
from .fade_mem import FadeMem
from .forcing_kv import ForcingKV
from .full import Full
from .id_forcing import IdForcing
from .infinity_rope import InfinityRope
from .longlive import LongLive
from .mem_flow import MemFlow
from .mem_rope import MemRope
from .mpcache import MPCache
from .near_sink import DeepSink, NearSink, SelfGradient
from .per_step import PerStep
from .pyramid_forcing import PyramidForcing
from .recency import Recency
from .recompute import Recompute
from .relax_forcing import RelaxForcing
from .rolling_sink import RollingSink
from .shot_sink import ShotSink
from .silenced import WITHOUT, read_heads, silence, write_heads
from .sliding_window import SlidingWindow
from .tether_cache import TetherCache
from .window_kv import WindowKV

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Full,
        SlidingWindow,
        ForcingKV,
        DummyForcing,
        LongLive,
        ShotSink,
        InfinityRope,
        DeepForcing,
        DeepSink,
        NearSink,
        Recency,
        RollingSink,
        RelaxForcing,
        TetherCache,
        MemRope,
        FadeMem,
        EmaSink,
        SelfGradient,
        Ca2Vdm,
        MPCache,
        WindowKV,
        IdForcing,
        PyramidForcing,
        MemFlow,
        ContextForcing,
        RandomRoles,
        NoAnchor,
        NoDynamic,
        Recompute,
        PerStep,
    )
}


MAX_TEXT = 20_000  # characters of a policy or a list of them
COMMON: tuple[Parameter, ...] = describe(Policy)
"""The parameters that all policies have."""


def own_parameters(policy: type[Policy]) -> list[Parameter]:
    """The parameters that a policy adds to those of the policy it derives from, or whose defaults it changes."""
    return [parameter for parameter in describe(policy) if parameter not in describe(policy.__mro__[1])]


def parity(policy: type[Policy]) -> str:
    """Whether a policy equals its authors' code, in words."""
    if policy.checked:
        return f"equal to {policy.checked} by recorded numbers"
    return "not checked against the authors' code" if policy.paper else "no other code to compare with"


def variant_of(policy: type[Policy]) -> str | None:
    """The name of the policy whose parameters a policy has too, as those of `forcing-kv` in its ablations."""
    base = next((other for other in POLICIES.values() if other is policy.__base__), None)
    return base.name if base and own_parameters(base) else None


def check_fit(policy: Policy, geometry: Geometry, roles: HeadRoles | None) -> None:
    """Raise ValueError where a policy cannot run on a model.

    Args:
        policy: The policy.
        geometry: Sizes of the model.
        roles: Its head roles, if there are any.
    """
    geometry.check_segments(policy.segments_of(geometry))
    geometry.check_groups(policy.groups(geometry, roles) or geometry.every_head)


def fitting(geometry: Geometry, roles: HeadRoles | None) -> list[str]:
    """The policies that fit a model with their default parameters.

    Args:
        geometry: Sizes of the model.
        roles: Its head roles, if there are any.
    """
    names = []
    for name, rule in POLICIES.items():
        try:
            check_fit(rule(), geometry, roles)
        except ValueError:
            continue
        names.append(name)
    return names


def json_schema() -> dict[str, Any]:
    """All policies and their parameters as JSON schemas, name -> schema of an object."""
    return {name: {"description": policy.help} | schema(policy) for name, policy in POLICIES.items()}


def make(name: str, **values: object) -> Policy:
    """Make a policy.

    Args:
        name: A key of `POLICIES`.
        **values: Some of its parameters; the others have their defaults.

    Raises:
        ValueError: For an unknown policy or parameter, or a value out of range, with what there is instead.
    """
    if "," in name:
        raise ValueError(f"expected one policy, got {name!r:.80}")
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r:.80}; there are {', '.join(POLICIES)}")
    known = defaults(POLICIES[name])
    for key in values:
        if key not in known:
            raise ValueError(f"policy {name!r} has no parameter {key!r:.80}; it has {', '.join(known)}")
    try:
        return POLICIES[name](**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"policy {name!r}: {error}") from None


def _value(name: str, key: str, text: str) -> object:
    """A parameter's value; where the policy declares words, the text itself."""
    if name in POLICIES and "enum" in schema(POLICIES[name])["properties"].get(key, {}):
        return text
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    raise ValueError(f"{key:.80} must be a number, true or false, not {text!r:.80}")


def parse(text: str) -> Policy:
    """Read a policy as the command line and permalinks write it.

    Args:
        text: `name` or `name:key=value,key=value`; `commit:6 ` before it lets the context pass read 6 frames,
            ` without 3.2+4.1` behind it silences heads (layer.head).

    Raises:
        ValueError: For anything else, as `make` does.
    """
    _check_length(text)
    text, silenced, heads = text.partition(WITHOUT.rstrip())
    if silenced:
        return silence(parse(text), read_heads(heads))
    if text.startswith(COMMIT):
        frames, _, base = text.removeprefix(COMMIT).partition(" ")
        if not frames.isdecimal() or not base:
            raise ValueError(f"{text!r:.80} should be written commit:FRAMES POLICY, as in commit:6 longlive")
        if base.lstrip().startswith(COMMIT):
            raise ValueError(f"{text!r:.80} says {COMMIT} twice")
        return Commit(parse(base.strip()), int(frames))
    name, _, rest = text.partition(":")
    values: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r:.80} should be written key=value, as in forcing-kv:retention=0.5")
        if key in values:
            raise ValueError(f"{key:.80} is given twice in {text!r:.80}")
        values[key] = _value(name, key, value)
    return make(name, **values)


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ValueError(f"the policy has {len(text):,} characters; at most {MAX_TEXT:,} are read")


def split(text: str) -> list[str]:
    """Split a comma-separated list of policies; `key=value` parts belong to the policy before them.

    Raises:
        ValueError: The list is too long to be one.
    """
    _check_length(text)
    parts: list[str] = []
    for part in text.split(","):
        if parts and "=" in part and ":" not in part:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def assignment(key: str, value: object) -> str:
    """Write `key=value` as in a policy's text."""
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def write(policy: Policy) -> str:
    """Write a policy as `parse` reads it back: its name and the parameters that differ from their defaults."""
    if policy.silenced_heads:
        return f"{write(policy.unsilenced)}{WITHOUT}{write_heads(policy.silenced_heads)}"
    if isinstance(policy, Commit):
        return f"{COMMIT}{policy.frames} {write(policy.base)}"
    base = policy.unwrapped
    changed = [key for key, default in defaults(type(base)).items() if getattr(base, key) != default]
    rest = ",".join(assignment(key, getattr(base, key)) for key in changed)
    return f"{base.name}:{rest}" if rest else base.name


__all__ = [
    "COMMIT",
    "COMMON",
    "POLICIES",
    "ChunkState",
    "PassReads",
    "Policy",
    "assignment",
    "check_fit",
    "fitting",
    "evict",
    "keeper",
    "json_schema",
    "make",
    "own_parameters",
    "page_kinds",
    "parity",
    "parse",
    "split",
    "variant_of",
    "write",
]
