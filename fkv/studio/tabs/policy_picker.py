"""The picker of a policy: every rule with what it reads and keeps, and a control for each of its parameters.

It writes the text field of its stream and reads it back; the script in `assets/studio/picker.js` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.page_tables import footprint
from fkv.parameters import describe, schema
from fkv.policies import COMMIT, POLICIES, Policy
from fkv.policies.silenced import silence
from fkv.studio.errors import sentence
from fkv.studio.live import forms
from fkv.studio.media.assets import page_asset

COUNTED_CHUNKS = 24
MOST_PAGES = 5000  # per frame and all groups; with more, counting takes seconds
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
        model; `problem`, a sentence where the field holds no policy, or none for this model.
    """
    shown: dict[str, Any] = {"stream": stream, "name": None, "values": {}, "figures": "", "problem": ""}
    try:
        policy = policies.parse(forms.text(text, "the policy"))
        base = policy.unwrapped
        values = {each.name: str(getattr(base, each.name)).lower() for each in describe(type(base))}
        shown |= {"name": base.name, "values": values | {"commit": str(policy.unsilenced.commit_frames)}}
        return shown | {"figures": figures(model, policy)}
    except ValueError as error:
        return shown | {"problem": sentence(error).replace("<", "‹")}


def figures(model: VideoModel, policy: Policy) -> str:
    """What a policy holds and reads on a model, counted from page tables; "" where there are too many pages to count.

    Raises:
        ValueError: The policy does not fit the model.
    """
    geometry = model.geometry
    if len(policy.groups(geometry, model.roles) or [""]) * policy.segments_of(geometry) > MOST_PAGES:
        return ""
    steps = len(model.schedule.sigmas)
    counted = footprint(geometry, policy, model.roles, COUNTED_CHUNKS, model.transformer.dtype, steps)
    after = f"After {counted.chunks} chunks ({counted.chunks * model.chunk_seconds:.0f} s) on this model,"
    holds = f"{_frames(counted.frames)}, {counted.bytes / 1e6:.1f} MB of K and V in all"
    if policy.watches_attention:
        return f"{after} a head holds at most {holds}. What it keeps and reads depends on the video."
    context = "" if counted.context is None else f", the context pass {_frames(counted.context)}"
    return f"{after} a head holds {holds}. Denoising reads {_frames(counted.denoise)}{context}."


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
