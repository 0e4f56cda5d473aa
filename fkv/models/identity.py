"""What tells one model from another: its name, its weights and its precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .base import VideoModel


class Identity(NamedTuple):
    """What tells the records of one model from those of another.

    Args:
        model: Its name.
        checkpoint: `checkpoint_hash` of its weights.
        precision: Of its transformer.
    """

    model: str
    checkpoint: str
    precision: str


def identity_of(model: VideoModel) -> Identity:
    """The identity of a loaded model."""
    return Identity(model.name, checkpoint_hash(model.weights, model.adapters), model.precision)


def checkpoint_hash(files: Iterable[Path], adapters: Iterable[str] = ()) -> str:
    """Return the first 16 digits of the SHA-256 of weight files, one after another, and of the strengths of adapters
    among them, as in `VideoModel.adapters`; empty without files."""
    files = tuple(files)
    return _hash(files, tuple(map(_version, files)), tuple(adapters)) if files else ""


def _version(file: Path) -> tuple[int, int]:
    """What changes when a file is written again."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _hash(files: tuple[Path, ...], versions: tuple[tuple[int, int], ...], adapters: tuple[str, ...]) -> str:
    """`checkpoint_hash` of files in these versions; large files are read once."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    for adapter in adapters:
        digest.update(adapter.encode())
    return digest.hexdigest()[:16]
