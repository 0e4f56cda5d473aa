"""The picker of a policy: every rule with what it reads and keeps, and a control for each of its parameters.

It writes the text field of its stream and reads it back; the script in `assets/studio/picker.js` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.page_tables import footprint, read_tables
from fkv.parameters import describe, schema
from fkv.policies import COMMIT, POLICIES, Policy
from fkv.policies.silenced import silence
from fkv.studio.errors import sentence
from fkv.studio.live import forms
from fkv.studio.media.assets import page_asset
from fkv.xray import tables

COUNTED_CHUNKS = 24
DRAWN_CHUNKS = 14
MOST_PAGES = 5000  # per frame and all groups; with more, counting takes seconds
CHOSEN = " Which pages these are depends on the video; the drawing shows a random choice."
SHORTER_CONTEXT = {
    "name": "commit",
    "help": "newest frames that the context pass reads (Commit Forcing), 0 for what the rule reads",
    "values": "a whole number of at least 0",
    "unit": "latent frames",
    "control": "number",
    "options": [],
    "whole": True,
}
"""A control that every rule with a context pass has: the policy is wrapped as `commit:FRAMES POLICY`."""

FAMILIES = {"released": "As released", "ablation": "Ours and ablations", "baseline": "Baselines"}


def catalogue() -> list[dict[str, Any]]:
    """All policies by family, with their drawings and parameters, as `assets/studio/picker.js` describes them."""
    drawings = json.loads(page_asset("policies.json"))
    return [
        {
            "title": title,
            "policies": [
                {
                    "name": policy.name,
                    "help": policy.help,
                    "paper": policy.paper,
                    "reading": policy.reading,
                    "drawing": drawings[policy.name],
                    "parameters": _parameters(policy),
                }
                for policy in POLICIES.values()
                if policy.family == family
            ],
        }
        for family, title in FAMILIES.items()
    ]


def _parameters(policy: type[Policy]) -> list[dict[str, Any]]:
    """What a control needs to know of each parameter."""
    declared = schema(policy)["properties"]
    rows = []
    for parameter in describe(policy):
        options = declared[parameter.name].get("anyOf", [declared[parameter.name]])
        share = any(option.get("maximum") == 1 for option in options)
        control = {"boolean": "checkbox", "string": "choice"}.get(options[0]["type"], "share" if share else "number")
        words = {"name": parameter.name, "help": parameter.help, "values": parameter.values, "unit": parameter.unit}
        whole = all(option["type"] == "integer" for option in options)
        rows.append(words | {"control": control, "options": options[0].get("enum", []), "whole": whole})
    return [*rows, SHORTER_CONTEXT] if policy.caches == "shared" else rows


def picked(model: VideoModel, stream: str, text: Any) -> dict[str, Any]:
    """What the picker of a stream shows for a text field.

    Returns:
        `stream`; `name` of the policy and its parameters' `values` as texts; `figures`, what it holds and reads on this
        model; `drawing`, see `drawing`; `problem`, a sentence where the field holds no policy, or none for this model.
    """
    shown: dict[str, Any] = {"stream": stream, "name": None, "values": {}, "figures": "", "drawing": None}
    shown["problem"] = ""
    try:
        policy = policies.parse(forms.text(text, "the policy"))
        base = policy.unwrapped
        values = {each.name: str(getattr(base, each.name)).lower() for each in describe(type(base))}
        shown |= {"name": base.name, "values": values | {"commit": str(policy.unsilenced.commit_frames)}}
        if _pages(model, policy) > MOST_PAGES:
            return shown
        return shown | {"figures": figures(model, policy), "drawing": drawing(model, policy)}
    except ValueError as error:
        return shown | {"problem": sentence(error).replace("<", "‹")}


def figures(model: VideoModel, policy: Policy) -> str:
    """What a policy holds and reads on a model, counted from page tables.

    Raises:
        ValueError: The policy does not fit the model.
    """
    steps = len(model.schedule.sigmas)
    counted = footprint(model.geometry, policy, model.roles, COUNTED_CHUNKS, model.transformer.dtype, steps)
    after = f"After {counted.chunks} chunks ({counted.chunks * model.chunk_seconds:.0f} s) on this model,"
    holds = f"{_frames(counted.frames)}, {counted.bytes / 1e6:.1f} MB of K and V in all"
    if policy.watches_attention:
        drawn = "" if _is_default(policy) else " The drawing is that of its default parameters."
        return f"{after} a head holds at most {holds}. What it keeps and reads depends on the video.{drawn}"
    context = "" if counted.context is None else f", the context pass {_frames(counted.context)}"
    drawn = "" if _is_default(policy) or not policy.unwrapped.compares_keys else CHOSEN
    return f"{after} a head holds {holds}. Denoising reads {_frames(counted.denoise)}{context}.{drawn}"


def drawing(model: VideoModel, policy: Policy) -> dict[str, Any] | None:
    """The page table of a policy in the last denoising pass of chunk `DRAWN_CHUNKS`, as the catalogue has one.

    Returns:
        `frames` and `groups`; None where the drawing of the catalogue stays, which shows default parameters.
    """
    if _is_default(policy) or policy.watches_attention:
        return None
    steps = len(model.schedule.sigmas)
    found = read_tables(model.geometry, policy, model.roles, DRAWN_CHUNKS, model.transformer.dtype, steps)
    groups = found.state.cache.groups
    cached = {name: group.pages for name, group in groups.items()}
    heads = {name: group.heads for name, group in groups.items()}
    drawn = tables(cached, heads, found.state.cache.segments, found.reads)
    return {"frames": found.state.frames[-1] + 1, "groups": drawn}


def _is_default(policy: Policy) -> bool:
    """Whether a policy is one of the catalogue."""
    return policy == POLICIES[policy.unwrapped.name]()


def _pages(model: VideoModel, policy: Policy) -> int:
    """Pages of a latent frame in all head groups. Raises ValueError where the policy does not fit the model."""
    groups = policy.groups(model.geometry, model.roles) or [""]
    return len(groups) * policy.segments_of(model.geometry)


def _frames(count: float) -> str:
    return f"{count:.3g} frame{'' if count == 1 else 's'}"


def choose(text: Any, name: str, values: Mapping[str, str]) -> str:
    """Put a policy into a text field.

    Args:
        text: The field; heads that are silenced there stay, and a shorter context pass unless `values` has another.
        name: The policy.
        values: Its parameters as texts, and `commit`; the others have their defaults.

    Returns:
        The new text.

    Raises:
        ValueError: With a sentence, for a parameter out of range or several that contradict each other.
    """
    written = ",".join(f"{key}={value}" for key, value in values.items() if key != "commit")
    chosen = f"{name}:{written}"
    policy = policies.parse(chosen)
    try:
        old = policies.parse(forms.text(text, "the policy"))
    except ValueError:
        old = policy
    commit = values.get("commit", str(old.unsilenced.commit_frames))
    if commit != "0":
        policy = policies.parse(f"{COMMIT}{commit} {chosen}")
    return policies.write(silence(policy, old.silenced_heads))
