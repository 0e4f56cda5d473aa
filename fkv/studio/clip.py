"""The endpoint for programs: a clip and its figures, without the page."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import gradio as gr

from ..models.base import VideoModel
from ..policies import parse
from ..report import stream_record
from ..stream import Stream
from ..video import Mp4Writer
from .live import sentence
from .sessions import Line

LONGEST = 120
KEPT_SECONDS = 3600.0


def add_endpoint(model: VideoModel, line: Line) -> None:
    """Offer `generate_clip` on the page that is being built."""

    def generate_clip(prompt: str, policy: str = "forcing-kv", chunks: int = 7, seed: int = 0) -> tuple[str, dict[str, Any]]:
        """Generate a video: an MP4 file, and its figures (FPS, seconds per stage, KV bytes, frame hash) per chunk.

        prompt: what to show. policy: what the cache keeps, as `name` or `name:parameter=value`. chunks: length, 1 to 120.
        seed: the same seed gives the same noise.
        """
        try:
            if not 1 <= chunks <= LONGEST:
                raise ValueError(f"a clip has 1 to {LONGEST} chunks, not {chunks}")
            stream, path, made = Stream(model, parse(policy), prompt, int(seed)), _path(), []
            with line.queue(stream), Mp4Writer(path, model.fps) as out:
                while line.place(stream, wait=1.0):
                    pass
                for _ in range(int(chunks)):
                    made.append(stream.step())
                    out.write(made[-1].video)
        except ValueError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        return str(path), stream_record(made, model.name, int(seed), model.transformer.device)

    inputs = [
        gr.Textbox(label="prompt", visible=False), gr.Textbox("forcing-kv", label="policy", visible=False),
        gr.Number(7, label="chunks", precision=0, visible=False), gr.Number(0, label="seed", precision=0, visible=False),
    ]  # fmt: skip
    outputs = [gr.File(label="MP4", visible=False), gr.JSON(label="figures", visible=False)]
    gr.Button(visible=False).click(generate_clip, inputs, outputs, api_name="generate_clip", concurrency_limit=4, show_progress="hidden")


def _path() -> Path:
    """Where the next clip goes; clips that are older than an hour are removed."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / "forcing-kv-clips"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.mp4"):
        if time.time() - old.stat().st_mtime > KEPT_SECONDS:
            old.unlink(missing_ok=True)
    return folder / f"{secrets.token_urlsafe(12)}.mp4"
