"""What a load script prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verdict(figures: Mapping[str, Any], checks: Mapping[str, bool]) -> int:
    """Print figures and checks as a table. Returns 0 when every check holds, else 1."""
    for name, value in figures.items():
        print(f"{name:>28}  {f'{value:,.2f}' if isinstance(value, float) else value}")
    for name, good in checks.items():
        print(f"{'ok' if good else 'BAD':>28}  {name}")
    return 0 if all(checks.values()) else 1
