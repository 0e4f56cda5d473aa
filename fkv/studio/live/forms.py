"""Values from a form or from a program, which may be anything."""

from __future__ import annotations

import math
from typing import Any


def whole_number(value: Any, name: str) -> int:
    """A whole number. Raises ValueError, with the name of the field, for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise ValueError(f"{name} must be a whole number, not {_shown(value)}")
    return int(value)


def text(value: Any, name: str) -> str:
    """A text without surrounding space. Raises ValueError, with the name of the field, for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {_shown(value)}")
    return value.strip()


def within(count: int, least: int, most: int, work: str, unit: str) -> int:
    """A count within its bounds. Raises ValueError with a sentence, as in "a clip takes 1 to 120 chunks, not 121"."""
    if not least <= count <= most:
        raise ValueError(f"{work} takes {least} to {most} {unit}, not {count}")
    return count


def _shown(value: Any) -> str:
    return "empty" if value is None else repr(value)[:40]
