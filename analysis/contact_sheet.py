"""Contact sheets: frames over time of held-out prompts, none selected."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fkv.models.base import VideoModel
from fkv.storyboard import NO_STORY, Storyboard
from fkv.stream import video_of
from fkv.world import FPS

from .evaluation_plots import filmstrip_pages, filmstrips
from .evaluation_streams import run_stream
from .held_out import held_out_shot
from .oracle_checks import check_world

COLUMNS = 8


def contact_sheet(
    model: VideoModel,
    policy: str,
    path: str | Path,
    prompts: int = 6,
    seconds: float = 60,
    columns: int = COLUMNS,
    story: Storyboard = NO_STORY,
) -> None:
    """Draw held-out prompts 0..prompts-1 with seeds 0..prompts-1, none selected: frames over time of each.

    For a model of the memory world every second prompt is a shot.

    Args:
        model: The model that streams.
        policy: As `fkv.policies.parse` reads it.
        path: PNG file to write, or PDF file, which has the prompts on its last page, so that one can name them first.
        prompts: Number of prompts, 1 to 100.
        seconds: Length of each stream, 2 to 3600.
        columns: Frames shown of each stream, 2 to 32.

    Raises:
        ValueError: The model does not generate the toy world, or a number is out of range.
    """
    check_world(model)
    check_size(prompts, columns, seconds)
    titles = []
    strips = []
    for index in tqdm(range(prompts), unit="stream", file=sys.stderr):
        text = held_out_shot(index) if index % 2 and model.transformer.events else None
        chunks = run_stream(model, policy, index, index, seconds, story, text)
        video = video_of(chunks)
        shown = np.linspace(0, len(video) - 1, columns).round().astype(int)
        strips.append(video[shown])
        titles.append(f"{chunks[0].prompt}   (seed {index})")
    draw = filmstrip_pages if Path(path).suffix.lower() == ".pdf" else filmstrips
    draw(titles, strips, (shown / FPS).tolist(), path)


def check_size(prompts: int, columns: int, seconds: float) -> None:
    """Raise ValueError for what no contact sheet shows, see `contact_sheet`."""
    if not 1 <= prompts <= 100 or not 2 <= columns <= 32 or not 2 <= seconds <= 3600:
        raise ValueError(
            "a contact sheet shows 1-100 prompts in 2-32 columns over 2-3600 seconds, "
            f"not {prompts}, {columns}, {seconds}"
        )
