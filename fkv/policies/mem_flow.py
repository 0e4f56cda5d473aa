"""MemFlow: a bank of single frames, of which those stay that the prompt asks for most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Count, Frames
from fkv.roles import HeadRoles

from .base import ChunkState
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of
from .sliding_window import SlidingWindow


@dataclass(frozen=True)
class MemFlow(SlidingWindow):
    """Reads S3 + M3 + R6 + C3 in every pass (arXiv 2512.14699, KlingTeam/MemFlow).

    The first frame of every third chunk is recorded. Before each chunk, a full bank keeps, per layer, the frames with
    the largest product of mean cross-attention key of the prompt and mean key of the frame, and the newest recorded
    frame takes the last place. As released, this happens at every chunk, so a recorded frame can fill several places,
    and a frame of bank and window is read twice.

    Differences: the released code scores with empty text keys right after a new prompt, here the new prompt scores. The
    sparse reading of the bank (`SMA`), off in the released configuration, is missing.
    """

    name = "memflow"
    help = "a short window and a bank of single frames that the prompt's text keys ask for"
    paper = "arXiv 2512.14699"
    family = "released"
    reading = "S3 + M3 + R6 + C3"
    compares_keys = True
    checked = ""

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 3
    window_frames: Annotated[
        Frames, Field(description="attended frames without the bank's, sink and chunk included")
    ] = 12
    bank_frames: Annotated[Frames, Field(ge=1, description="frames in the bank (`bank_size`)")] = 3
    record_chunks: Annotated[Count, Field(ge=1, description="chunks per recorded frame (`record_interval`)")] = 3

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return geometry.every_layer

    def recorded(self, state: ChunkState) -> list[int]:
        """Frames recorded before this chunk, ascending."""
        return list(range(0, state.frames[0], self.record_chunks * len(state.frames)))

    def bank(self, group: str, state: ChunkState) -> list[int]:
        """Cached frames in a layer's bank; a frame can be there several times."""
        bank = state.cache.notes.get("bank", {}).get(group) or self.recorded(state)[: self.bank_frames]
        return _cached(bank, group, state)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        if state.step == "step 0":
            self._renew(group, state)
        pages = pages_of(group, state)
        recent = pages.frame > state.frames[-1] - (self.window_frames - self.sink_frames)
        window = np.flatnonzero((pages.frame < self.sink_frames) | recent)
        return Reads(np.concatenate([window, *(pages.rows_of([frame]) for frame in self.bank(group, state))]))

    def _renew(self, group: str, state: ChunkState) -> None:
        """Let the newest recorded frame into a layer's bank."""
        if not any(state.cache.groups[group].heads):
            return  # all silenced
        bank = recorded = self.recorded(state)
        if len(recorded) > self.bank_frames:
            bank = self.bank(group, state)
            if len(bank) >= self.bank_frames:
                best = np.argsort(-self.scores(group, state, bank), kind="stable")[: self.bank_frames - 1]
                bank = [bank[i] for i in best]
            bank = [*bank, recorded[-1]]
        state.cache.notes.setdefault("bank", {})[group] = _cached(bank, group, state)

    def scores(self, group: str, state: ChunkState, frames: list[int]) -> np.ndarray:
        """How much the prompt asks for each frame in a layer, [frames]."""
        layer, heads = next((i, heads) for i, heads in enumerate(state.cache.groups[group].heads) if heads)
        keys = state.cache.keys_of(layer, group, frames).float().mean(3)
        asked = state.text_keys[layer][:, list(heads)].float().mean(2)
        products = (asked[:, :, None] * keys).sum(-1) * keys.shape[-1] ** -0.5
        return products.mean((0, 1)).cpu().numpy()

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return super().keep_mask(group, pages, state) | np.isin(pages.frame, self.bank(group, state))

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        return RECALLED if frame in self.bank(group, state) else KEPT


def _cached(frames: list[int], group: str, state: ChunkState) -> list[int]:
    cached = set(pages_of(group, state).frame.tolist())
    return [frame for frame in frames if frame in cached]
