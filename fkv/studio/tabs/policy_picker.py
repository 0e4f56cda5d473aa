"""The picker of a policy: every rule with what it reads and keeps, and a control for each of its parameters.

It writes the text field of its stream and reads it back; the script in `assets/studio/picker.js` draws it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fkv import policies
from fkv.parameters import describe, schema
from fkv.policies import POLICIES, Policy
from fkv.policies.commit import Commit
from fkv.policies.silenced import silence
from fkv.studio.errors import sentence
from fkv.studio.live import forms
from fkv.studio.media.assets import page_asset

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
    return rows


def picked(stream: str, text: Any) -> dict[str, Any]:
    """What the picker of a stream shows for a text field.

    Returns:
        `stream`; `name` of the policy and its parameters' `values` as texts; `problem`, a sentence where the field
        holds no policy.
    """
    try:
        policy = policies.parse(forms.text(text, "the policy")).unwrapped
    except ValueError as error:
        return {"stream": stream, "name": None, "values": {}, "problem": sentence(error).replace("<", "‹")}
    values = {each.name: str(getattr(policy, each.name)).lower() for each in describe(type(policy))}
    return {"stream": stream, "name": policy.name, "values": values, "problem": ""}


def choose(text: Any, name: str, values: Mapping[str, str]) -> str:
    """Put a policy into a text field.

    Args:
        text: The field; heads that are silenced there, and a shorter context pass, stay.
        name: The policy.
        values: Its parameters as texts; the others have their defaults.

    Returns:
        The new text.

    Raises:
        ValueError: With a sentence, for a parameter out of range or several that contradict each other.
    """
    written = ",".join(f"{key}={value}" for key, value in values.items())
    policy = policies.parse(f"{name}:{written}")
    try:
        old = policies.parse(forms.text(text, "the policy"))
    except ValueError:
        return policies.write(policy)
    if isinstance(old.unsilenced, Commit):
        policy = Commit(policy, old.unsilenced.frames)
    return policies.write(silence(policy, old.silenced_heads))
