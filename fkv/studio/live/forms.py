"""Fields of forms and of calls, declared once: type, range and meaning, from which checks and hints follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fkv.parameters import check
from fkv.stream import MAX_CHUNKS

RunChunks = Annotated[int, Field(ge=0, le=MAX_CHUNKS, description="chunks of a live run, 0 until it is stopped")]
ChunkFrames = Annotated[int, Field(ge=0, le=21, description="latent frames of a chunk, 0 for the model's own")]
ClipChunks = Annotated[int, Field(ge=1, le=120, description="chunks of a clip")]
ExploreChunks = Annotated[int, Field(ge=1, le=40, description="chunks of each future")]
ExploreAhead = Annotated[int, Field(ge=0, le=40, description="chunks by which the tree is ahead of a decision")]
ExploreWidth = Annotated[int, Field(ge=1, le=16, description="futures side by side")]
ExplorePasses = Annotated[int, Field(ge=1, le=2000, description="passes of the model")]
ProfilePrompts = Annotated[int, Field(ge=1, le=8, description="prompts of a profile")]
ProfileChunks = Annotated[int, Field(ge=3, le=14, description="chunks of each stream of a profile")]


@dataclass(frozen=True)
class ComparisonSize:
    """How large a comparison may be."""

    policies: Annotated[int, Field(ge=2, le=8, description="policies to compare")]
    prompts: Annotated[int, Field(ge=1, le=16, description="prompts to compare them on")]
    seeds: Annotated[int, Field(ge=1, le=8, description="seeds per prompt")]
    chunks: Annotated[int, Field(ge=2, le=60, description="chunks of each stream")]


def text(value: Any, name: str) -> str:
    """A text without surrounding space. Raises ValueError, with the name of the field, for anything else."""
    return check(name, value, str).strip()
