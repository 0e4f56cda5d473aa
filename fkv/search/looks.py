"""How far siblings of a model look apart: below that, ETS counts looks as one. Measured by a search, kept in a file.

The file lies beside the weights, as head roles of the tiny model do, and says how it was measured.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fkv.files import read_json
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.report import device_name

from .strategies import Ets, Strategy
from .tree import PERCENTILE, Node, sibling_distance, sibling_distances

FILE = "looks.json"
MAX_BYTES = 1 << 20


def weights_of(model: VideoModel) -> dict[str, Any]:
    """What tells the looks of a model and what a head knows of it from another's: its name and its weights."""
    identity = identity_of(model)
    return {"model": identity.model, "checkpoint": identity.checkpoint}


def measured(root: Node, model: VideoModel, run: dict[str, Any]) -> dict[str, Any]:
    """Measure the distance of a tree.

    Args:
        root: Of a search that is over.
        model: What generated it.
        run: The settings of the search.

    Raises:
        ValueError: There are no siblings.
    """
    distance = sibling_distance(root)
    if distance is None:
        raise ValueError("no chunk of this search has siblings to measure; choose a larger width, or other moves")
    return {
        "distance": distance,
        "percentile": PERCENTILE,
        "pairs": len(sibling_distances(root)),
        **weights_of(model),
        **run,
        "precision": model.precision,
        "device": device_name(model.device),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }


def fitted(strategy: Strategy, model: VideoModel, file: Path | None = None) -> Strategy:
    """The strategy with the distance that was measured for the model, where it needs one and names none.

    Args:
        strategy: Any.
        model: What generates.
        file: The measurement, by default the one beside the model's weights.

    Raises:
        ValueError: There is no measurement, it cannot be read, or it is another model's.
    """
    if not isinstance(strategy, Ets) or strategy.distance is not None:
        return strategy
    file = file or model.beside(FILE)
    if file is None:
        raise ValueError(
            f"ets has to know how far siblings of {model.name} look apart, and nobody measured it; measure it with "
            "fkv search --calibrate FILE, or name a distance, as in ets:distance=0.1"
        )
    try:
        told = read_json(file, MAX_BYTES)
        distance = float(told["distance"])
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    except (KeyError, TypeError):
        raise ValueError(f"{file} says no distance; measure one with fkv search --calibrate FILE") from None
    if any(told.get(name) != value for name, value in weights_of(model).items()):
        raise ValueError(f"{file} was measured for other weights than those of {model.name}; measure it again")
    return replace(strategy, distance=distance)


def save(told: dict[str, Any], file: Path) -> None:
    """Write a measurement."""
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
