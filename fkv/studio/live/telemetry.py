"""What the operator reads: one line of JSON per run or problem in the log. Nothing that visitors type and no key under
which frames can be fetched is logged unless `setup` is told to."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
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


TYPED = frozenset({"prompt", "path"})
"""Facts that visitors type, or that hold the key of a run."""
WITHHELD = "message withheld; --log-prompts shows it"
SECONDS = 60.0  # within which the same message is logged once


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the facts that came with it.

    What visitors type is left out unless it is asked for: of an error its type and where it happened remain, of a
    message of another library the text before anything was filled in.

    Args:
        prompts: Whether to log what visitors type.
    """

    def __init__(self, prompts: bool = False) -> None:
        super().__init__()
        self.prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        facts = {k: v for k, v in getattr(record, "facts", {}).items() if k not in TYPED or self.prompts}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._event(record),
            **facts,
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["traceback"] = self.formatException(record.exc_info) if self.prompts else _places(error)
        return json.dumps(line, default=str)

    def _event(self, record: logging.LogRecord) -> str:
        if self.prompts or record.name.partition(".")[0] == "fkv":
            return record.getMessage()
        template = str(record.msg)
        return template if record.args and template != "%s" else WITHHELD


def _places(error: BaseException | None) -> str:
    """The types of an error and of its causes and where they happened, without their messages."""
    chain: list[str] = []
    while error is not None and len(chain) < 8:
        places = (f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in traceback.extract_tb(error.__traceback__))
        chain.append(f"{type(error).__name__} at {' < '.join(reversed(list(places)))}")
        error = error.__cause__ or error.__context__
    return "; from ".join(chain)


class Seldom(logging.Filter):
    """Lets the same message through once in `SECONDS` and says how many were left out; records of runs always pass."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == log.name:
            return True
        error = record.exc_info[1] if record.exc_info else None
        place = "" if error is None else _places(error).partition(" < ")[0]
        key = (record.name, record.pathname, record.lineno, place)
        now = time.monotonic()
        last, left_out = self._last.get(key, (-SECONDS, 0))
        if now - last < SECONDS:
            self._last[key] = last, left_out + 1
            return False
        self._last[key] = now, 0
        if left_out:
            record.facts = {**getattr(record, "facts", {}), "left_out": left_out}
        return True


def setup(prompts: bool = False) -> None:
    """Log the studio, and what Gradio, uvicorn and Python report, as JSON lines to stderr.

    Args:
        prompts: Whether to log what visitors type.
    """
    import gradio.queueing
    import gradio.routes
    from uvicorn.config import LOGGING_CONFIG

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(prompts))
    handler.addFilter(Seldom())
    studio = logging.getLogger("fkv")
    for logger in (logging.getLogger(), studio):
        logger.handlers = [handler]
    studio.propagate = False
    studio.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # uvicorn configures its loggers when it starts, from this table: they then reach the handler above
    for logger in LOGGING_CONFIG["loggers"].values():
        logger["handlers"] = []
        logger["propagate"] = True
    # Gradio prints tracebacks of its events with this one function
    printing = SimpleNamespace(**vars(traceback) | {"print_exc": _log_error})
    for module in (gradio.queueing, gradio.routes):
        module.traceback = printing  # type: ignore[attr-defined]
    threading.excepthook = lambda raised: logging.getLogger("fkv.thread").error(
        "a thread failed", exc_info=raised.exc_value
    )


def _log_error(*_: Any, **__: Any) -> None:
    """In place of `traceback.print_exc`."""
    logging.getLogger("fkv.gradio").error("an event failed", exc_info=True)
