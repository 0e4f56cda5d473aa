"""What the operator reads: one line of JSON per run in the log. No prompt is logged unless `setup` is told to, and
never a key under which frames can be fetched."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from fkv.report import fps
from fkv.stream import Chunk

log = logging.getLogger("fkv.streams")


@dataclass
class Tally:
    """Frames and seconds of one stream, from which its rates follow, and the peak of its KV bytes."""

    frames: int = 0
    generate: float = 0.0
    total: float = 0.0
    kv_bytes_peak: int = 0

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.frames += chunk.video_frames
        self.generate += chunk.timings.generate
        self.total += chunk.timings.total
        self.kv_bytes_peak = max(self.kv_bytes_peak, chunk.kv_bytes)

    def figures(self) -> dict[str, float | None]:
        """`fps_denoise` and `fps_end_to_end` (None before the first chunk), and `kv_bytes_peak`."""
        rates = fps(self.frames, self.generate, self.total)
        rounded = {name: None if rate is None else round(rate, 2) for name, rate in rates.items()}
        return {**rounded, "kv_bytes_peak": self.kv_bytes_peak}


def log_run(**facts: Any) -> None:
    """Log one run: how it ended, its settings and what it took."""
    log.info("stream", extra={"facts": facts})


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the facts that came with it.

    Args:
        prompts: Whether prompts are among the facts.
    """

    def __init__(self, prompts: bool = False) -> None:
        super().__init__()
        self.prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        facts = {k: v for k, v in getattr(record, "facts", {}).items() if k != "prompt" or self.prompts}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **facts,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def setup(prompts: bool = False) -> None:
    """Log the studio as JSON lines to stderr.

    Args:
        prompts: Whether to log what visitors type.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(prompts))
    studio = logging.getLogger("fkv")
    studio.handlers = [handler]
    studio.propagate = False
    studio.setLevel(logging.INFO)
