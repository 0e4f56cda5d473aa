"""What `--policy auto` says. Every stream reads it, so that nothing else of a search is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fkv.parameters import check_fields, read

AUTO = "auto"
FULL = "full"


@dataclass(frozen=True)
class Tolerance:
    """What `--policy auto:tolerance=30+every=4` says."""

    tolerance: Annotated[float, Field(ge=0, description="PSNR to the full cache that must be reached, in dB")] = 30.0
    every: Annotated[int, Field(ge=1, description="chunks from one measurement to the next; ignored with a head")] = 4
    among: Annotated[str, Field(description="candidates with | between them")] = "forcing-kv|sliding-window"

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def parse(cls, text: str) -> Tolerance | None:
        """Read the policy `auto` as the command line writes it; None for any other. Raises ValueError."""
        name, _, rest = text.strip().partition(":")
        return read(cls, f"policy {AUTO!r}", rest) if name == AUTO else None
