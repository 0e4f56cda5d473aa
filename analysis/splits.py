"""Head splits to set beside a model's own: those released with the paper, and Pyramid Forcing's classes as one."""

from __future__ import annotations

import json

from fkv import roles as role_files
from fkv.policies.pyramid_forcing import CLASSES
from fkv.resources import asset
from fkv.roles import HeadRoles

FOLDER = asset("head_roles")


def released() -> dict[str, HeadRoles]:
    """Return the five splits that were released with the paper, by model name."""
    splits = [role_files.load(path) for path in sorted(FOLDER.glob("*.json"))]
    return {split.provenance["model"]: split for split in splits}


def with_released(ours: HeadRoles | None) -> dict[str, HeadRoles]:
    """Return the given split, if any, the released ones, and Pyramid Forcing's classes as a split, by name."""
    named = {f"{ours.provenance.get('model', 'this model')} (ours)": ours} if ours else {}
    return named | released() | {"Self Forcing (Pyramid)": pyramid()}


def pyramid() -> HeadRoles:
    """Return Pyramid Forcing's published head classes of Self Forcing as a split.

    Its anchor heads, which look at many frames, correspond to dynamic heads; wave and veil heads to static ones. 286 of
    360 heads then have the role that Forcing-KV gives them.
    """
    data = json.loads(CLASSES.read_text(encoding="utf-8"))
    static = tuple(tuple(sorted(heads["wave"] + heads["veil"])) for heads in data["layers"])
    return HeadRoles(data["num_heads"], static, provenance={"model": data["model"], "source": data["source"]})
