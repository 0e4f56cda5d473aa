"""The models there are. Adding one is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import tiny
from .base import VideoModel


@dataclass(frozen=True)
class ModelEntry:
    """A model by name: one line of help and how to load it onto a device."""

    name: str
    help: str
    load: Callable[..., VideoModel]


MODELS = {
    entry.name: entry
    for entry in (ModelEntry("tiny", "the toy-world model that ships with the studio; streams on two CPU cores", tiny.load),)
}


def load(name: str, device: str = "cpu") -> VideoModel:
    """Load a model by name. Raises ValueError for an unknown name and says which there are."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name].load(device=device)
