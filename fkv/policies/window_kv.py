"""WindowKV: groups of layers share windows of neighbouring pages, and later groups hold fewer of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.kernels import frame_mass
from fkv.pages import Geometry, Heads, Pages
from fkv.parameters import Count, Frames
from fkv.roles import HeadRoles

from . import page_scores
from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK

Strategy = Literal["max", "average"]


@dataclass(frozen=True)
class WindowKV(Policy):
    """Keep windows of pages that the newest chunk attends to (arXiv 2503.17922, optim996/WindowKV).

    Neighbouring layers form a group with one page table and one budget; budgets fall evenly from the first group to the
    last. The newest frames always stay. Of earlier frames, windows of neighbouring pages stay: those with the largest
    score by the attention mass of the context pass in the first layer of the group, over all queries and heads. `max`
    scores a window by the mean of the larger half of its pages (a few pages matter: follow a thing), `average` by the
    mean of all (many matter a little: hold a scene). A window that is dropped stays away.
    """

    name = "window-kv"
    help = "keeps windows of neighbouring pages that the newest chunk attends to; later layers keep fewer"
    paper = "arXiv 2503.17922"
    reading = "M2.3 to M5.7, by group of layers + R1 + C3"

    budget_frames: Annotated[
        float,
        Field(
            gt=0,
            le=100_000,
            description="mean over groups, beside the newest frames",
            json_schema_extra={"unit": "latent frames"},
        ),
    ] = 4.0
    window: Annotated[Count, Field(ge=1, description="pages of a window, within one frame")] = 3
    shared_layers: Annotated[
        Count, Field(description="layers of a group, which divide the model's; 0 for about a quarter of them")
    ] = 0
    taper: Annotated[
        float, Field(gt=0, le=1, description="budget of the last group, as a share of the mean (`gamma / beta`)")
    ] = 0.571
    suffix_frames: Annotated[Frames, Field(ge=1, description="newest frames, always kept")] = 1
    sink_frames: Annotated[Frames, Field(description="first frames of the stream, always kept, within the budget")] = 0
    strategy: Annotated[Strategy, Field(description="how the pages of a window are scored together")] = "max"
    segments_per_frame: Annotated[Count, Field(ge=1, description="pages of a latent frame")] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.budget_frames * self.taper
        if least < self.sink_frames:
            enough = self.sink_frames / self.taper
            raise ValueError(
                f"the last layers keep budget_frames x taper = {least:.3g} frames, which must hold the "
                f"{self.sink_frames} of sink_frames; raise budget_frames to {math.ceil(100 * enough) / 100:g}"
            )

    def segments_of(self, geometry: Geometry) -> int:
        return self.segments_per_frame

    def layers_of_a_group(self, layers: int) -> int:
        """Layers of a group in a model. Raises ValueError unless they divide its layers."""
        divisors = [size for size in range(1, layers + 1) if layers % size == 0]
        size = self.shared_layers or min(divisors, key=lambda each: abs(each - layers / 4))
        if size not in divisors:
            raise ValueError(
                f"shared_layers must divide the model's {layers} layers: "
                f"{', '.join(map(str, divisors[:-1]))} or {layers}, not {size}"
            )
        return size

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return geometry.layer_sets(self.layers_of_a_group(geometry.layers))

    def budgets(self, groups: int) -> list[int]:
        """Pages that each group of layers keeps beside the newest frames."""
        falls = np.linspace(2 - self.taper, self.taper, groups) if groups > 1 else np.ones(1)
        return [round(share) for share in (self.budget_frames * self.segments_per_frame * falls).tolist()]

    def selects(self, step: str, state: ChunkState) -> bool:
        return step == "context"

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        cache = state.cache
        for group, heads, keys, _ in cache.read_stored(layer):
            if layer == next(at for at, heads_of in enumerate(group.heads) if heads_of):
                pages = torch.arange(len(group.pages), device=keys.device)
                mass = frame_mass(query[:, heads], keys, pages, len(pages)).mean((0, 1, 2))
                page_scores.note(state, group.name, group.pages, mass.cpu().numpy())

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        keep = (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - self.suffix_frames)
        mass = page_scores.found(state, group, pages)
        if np.isnan(mass).any():  # no pass has seen them, as just after a switch: the newest count most
            mass = pages.frame.astype(float)
        groups = list(self.groups(state.cache.geometry, None))
        budget = self.budgets(len(groups))[groups.index(group)]
        sink = int((pages.frame < self.sink_frames).sum())
        for window in self.best_windows(pages, mass, ~keep, budget - sink):
            keep[window] = True
        return keep

    def best_windows(self, pages: Pages, mass: np.ndarray, open_pages: np.ndarray, budget: int) -> list[np.ndarray]:
        """The windows that stay: rows of `pages` each, as many as fit a budget of pages.

        Args:
            pages: The pages of a group.
            mass: Attention mass of each, [pages].
            open_pages: Which of them are not kept anyway, bool [pages].
            budget: Pages that may stay.
        """
        rows = np.flatnonzero(open_pages)
        place = pages.frame[rows] * self.segments_per_frame + pages.segment[rows]
        window = pages.frame[rows] * self.segments_per_frame + pages.segment[rows] // self.window
        rows, window = rows[np.argsort(place)], np.sort(window)
        windows = [rows[window == each] for each in np.unique(window)]
        ranked = sorted(windows, key=lambda each: -self.score(mass[each]))
        left = len(rows)
        while ranked and left > budget:
            left -= len(ranked.pop())
        return ranked

    def score(self, mass: np.ndarray) -> float:
        """The score of a window from the attention mass of its pages."""
        counted = (len(mass) + 1) // 2 if self.strategy == "max" else len(mass)
        return float(np.sort(mass)[-counted:].mean())

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        return RECALLED if frame < state.frames[0] - self.suffix_frames else KEPT
