"""A run as an MP4 file, from the page's chunk files: frames side by side, with labels and charts of its figures."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from fkv import policies
from fkv.analysis.figures.style import PALETTES
from fkv.studio.errors import explain
from fkv.video import Mp4Writer

from .protocol import decoded, unpack

log = logging.getLogger(__name__)

# Pixels: width of a frame, space around it, heights of the labels above and of the charts below.
FRAME = 616
GAP = 16
HEAD = 104
FOOT = 220
DPI = 100
DASHES = {"A": "-", "B": (0, (4, 2))}
COLOURS = PALETTES["dark"]
Record = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """What to write.

    Args:
        files: Chunk files in order.
        fps: Frames per second.
        source: Where the figures come from, as in "live on ...".
        plain: Write only the frames, without labels and charts.
    """

    files: Sequence[bytes]
    fps: int
    source: str
    plain: bool = False

    @property
    def name(self) -> str:
        """The name of the file: the policies and the hash of the first stream's frames at the end."""
        streams = unpack(self.files[-1])[0]["streams"].values()
        names = [policies.parse(own["policy"]).unwrapped.name for own in streams]
        return "-".join(["forcing-kv-studio", *names, next(iter(streams))["hash"][:8]]) + ".mp4"


def write(recording: Recording, path: Path) -> Iterator[int]:
    """Write a recording; yields how many chunks are done.

    Raises:
        ValueError: If there are no chunks, or the file cannot be written.
    """
    if not recording.files:
        raise ValueError("there is nothing to record yet; press Go live first")
    board = None
    names = list(unpack(recording.files[-1])[0]["streams"])
    with Mp4Writer(path, recording.fps) as out:
        for number, file in enumerate(recording.files, 1):
            record, jpegs = unpack(file)
            frames = [decoded(jpeg) for jpeg in jpegs]
            count = len(jpegs) // len(record["streams"])
            sides = len(names) // len(record["streams"])  # the past of a branch is that of both streams
            rows = [frames[i::count] * sides for i in range(count)]
            if recording.plain:
                out.write(np.stack([_even(np.hstack(row)) for row in rows]))
            else:
                if board is None:
                    records = [unpack(each)[0] for each in recording.files]
                    board = _Board(records, rows[0][0].shape, recording.source)
                out.write(np.stack(list(board.frames(number - 1, rows))))
            yield number


class Encoding:
    """Writes a recording in a thread of its own, at the lowest priority, so that no stream waits for it.

    Attributes:
        done: Chunks written so far.
        total: Chunks to write.
        problem: A sentence for the visitor once it has failed.
    """

    def __init__(self, recording: Recording, path: Path) -> None:
        self.done = 0
        self.total = len(recording.files)
        self.problem = ""
        self._recording = recording
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Encoding]:
        """Work while the block runs; leaving it early ends the work."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Wait that long at most. True while there is work left."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def _work(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            for done in write(self._recording, self._path):
                self.done = done
                if self._over.is_set():
                    return
        except Exception as error:
            ended, self.problem = explain(error, f"{self.done} chunks", "recording")
            if ended == "failed":
                log.exception("a recording failed")


class _Board:
    """Everything around the frames, drawn once per chunk."""

    def __init__(self, records: Sequence[Record], shape: tuple[int, ...], source: str) -> None:
        self.records, self.names = records, list(records[-1]["streams"])
        wide = FRAME if len(self.names) > 1 else 2 * FRAME + GAP
        self.size = wide, round(wide * shape[0] / shape[1])
        self.width, self.height = 2 * FRAME + 3 * GAP, (HEAD + self.size[1] + FOOT) // 2 * 2
        figure = Figure((self.width / DPI, self.height / DPI), dpi=DPI, facecolor=COLOURS.paper)
        self.canvas, self.figure = FigureCanvasAgg(figure), figure
        self.prompt = self._text(GAP, 20, 17, weight="bold")
        self.reads = {
            name: [self._text(self._left(i), 56, 17, weight="bold"), self._text(self._left(i), 84, 14, COLOURS.soft)]
            for i, name in enumerate(self.names)
        }
        self._text(GAP, self.height - 12, 11, COLOURS.soft).set_text(f"{source} · Forcing-KV Studio")
        fps = {name: [own["fps_denoise"] if own else np.nan for own in self._own(name)] for name in self.names}
        held = {name: [own["kv_bytes"] / 1e6 if own else np.nan for own in self._own(name)] for name in self.names}
        self.cursors = [
            self._chart(0, "denoise FPS per chunk", fps),
            self._chart(1, "KV memory, MB while a chunk attends", held),
        ]

    def frames(self, number: int, rows: Sequence[Sequence[np.ndarray]]) -> Iterator[np.ndarray]:
        """The frames of a chunk, uint8 [H, W, 3]; rows : per video frame the pictures of all streams."""
        record = self.records[number]
        self.prompt.set_text(shorten(f"chunk {record['index'] + 1} · {record['prompt']}", 115, placeholder="…"))
        for name, (title, figures) in self.reads.items():
            own = record["streams"].get(name)
            if own is None:
                title.set_text(f"{name} begins later; until then it is {self.names[0]}")
                figures.set_text("")
                continue
            title.set_text(shorten(f"{name} {own['policy']}", 56, placeholder="…"))
            rates = f"{own['fps_denoise']:.1f} denoise FPS · {own['fps_end_to_end']:.1f} end to end"
            figures.set_text(f"{rates} · {own['kv_bytes'] / 1e6:.1f} MB KV")
        for cursor in self.cursors:
            cursor.set_xdata([record["index"] + 1] * 2)
        self.canvas.draw()
        board = np.asarray(self.canvas.buffer_rgba())[..., :3]
        for row in rows:
            frame = board.copy()
            for i, picture in enumerate(row):
                x, (wide, high) = self._left(i), self.size
                frame[HEAD : HEAD + high, x : x + wide] = cv2.resize(picture, self.size, interpolation=cv2.INTER_CUBIC)
            yield frame

    def _own(self, name: str) -> list[Record | None]:
        return [record["streams"].get(name) for record in self.records]

    def _left(self, i: int) -> int:
        return GAP + i * (FRAME + GAP)

    def _text(self, x: float, y: float, pixels: float, colour: str = COLOURS.ink, **style: Any) -> Text:
        """A text whose middle is `y` pixels below the top; visitors' words are never read as formulas."""
        return self.figure.text(
            x / self.width,
            1 - y / self.height,
            "",
            va="center",
            size=pixels * 72 / DPI,
            color=colour,
            parse_math=False,
            **style,
        )

    def _chart(self, i: int, title: str, lines: dict[str, list[float]]) -> Any:
        """A line per stream over chunks. Returns the upright line that marks a chunk."""
        left, wide, low, high = self._left(i) + 40, FRAME - 72, 52, FOOT - 92
        axes: Axes = self.figure.add_axes((left / self.width, low / self.height, wide / self.width, high / self.height))
        axes.set_facecolor(COLOURS.paper)
        axes.set_title(title, loc="left", size=10, color=COLOURS.ink, x=-40 / wide)
        chunks = [record["index"] + 1 for record in self.records]
        for name, values in lines.items():
            dot = "o" if len(chunks) == 1 else ""
            axes.plot(chunks, values, color=COLOURS.ink, linestyle=DASHES[name], linewidth=2, marker=dot)
            axes.annotate(
                name,
                (chunks[-1], values[-1]),
                (8, 0),
                textcoords="offset points",
                va="center",
                size=10,
                color=COLOURS.ink,
            )
        axes.set_ylim(0, 1.08 * max(np.nanmax(values) for values in lines.values()))
        axes.set_xlim(chunks[0], max(chunks[-1], chunks[0] + 1))
        axes.locator_params(nbins=4)
        axes.locator_params("x", integer=True)
        axes.grid(axis="y", color=COLOURS.grid, linewidth=0.8)
        axes.tick_params(colors=COLOURS.soft, length=0, labelsize=9)
        axes.spines[:].set_visible(False)
        return axes.axvline(chunks[0], color=COLOURS.soft, linewidth=1)


def _even(picture: np.ndarray) -> np.ndarray:
    """Without an odd last row or column, which H.264 does not take."""
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
