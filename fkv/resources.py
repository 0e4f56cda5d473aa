"""Files that ship with the package: weights, head roles, page assets."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def asset(name: str) -> Path:
    """Return the path of a shipped file or folder.

    Args:
        name: Name in `assets/`, as in `asset("tiny") / "roles.json"`.
    """
    return Path(str(files("fkv.assets").joinpath(name)))
