"""What the operator sees: a line of JSON per stream in the log, `/healthz`, and `/metrics` for Prometheus where asked for.

No prompt is logged unless `setup` is told to, and never a key under which frames can be fetched.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fkv.models.base import VideoModel
from fkv.stream import Chunk

from .sessions import Registry

log = logging.getLogger("fkv.streams")
began = time.monotonic()


@dataclass
class Tally:
    """Frames and seconds of one stream, from which its rates follow."""

    frames: int = 0
    generate: float = 0.0
    total: float = 0.0
    kv_bytes_peak: int = 0

    def add(self, chunk: Chunk) -> None:
        self.frames += chunk.video_frames
        self.generate += chunk.timings.generate
        self.total += chunk.timings.total
        self.kv_bytes_peak = max(self.kv_bytes_peak, chunk.kv_bytes)

    def figures(self) -> dict[str, float | None]:
        """fps_denoise, fps_end_to_end (None before the first chunk) and the peak of KV bytes."""
        rates = {"fps_denoise": (self.frames, self.generate), "fps_end_to_end": (self.frames, self.total)}
        figures = {name: round(frames / seconds, 2) if seconds else None for name, (frames, seconds) in rates.items()}
        return {**figures, "kv_bytes_peak": self.kv_bytes_peak}


def stream_ended(ended: str, **facts: Any) -> None:
    """Log one stream: how it ended, in a word or two, its settings and what it took."""
    log.info("stream", extra={"facts": {"ended": ended, **facts}})


class JsonLines(logging.Formatter):
    """Every record as one line of JSON: time, level, logger, message, and the facts that came with it."""

    def __init__(self, prompts: bool = False) -> None:
        super().__init__()
        self.prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        facts = {k: v for k, v in getattr(record, "facts", {}).items() if k != "prompt" or self.prompts}
        time_of = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = {
            "time": time_of,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **facts,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def setup(prompts: bool = False) -> None:
    """Log the studio as JSON lines to stderr. prompts : also what visitors typed."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(prompts))
    studio = logging.getLogger("fkv")
    studio.handlers, studio.propagate = [handler], False
    studio.setLevel(logging.INFO)


def health(model: VideoModel, registry: Registry) -> Route:
    """`/healthz`: that the studio answers, and how busy it is."""

    async def healthz(request: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "model": model.name, "uptime_s": round(time.monotonic() - began, 1)} | load(registry)
        )

    return Route("/healthz", healthz)


def load(registry: Registry) -> dict[str, int]:
    """Streams that run and visitors that wait, and bytes: of encoded chunks, and resident of the process."""
    queue = registry.queue
    return {
        "running": queue.running,
        "waiting": queue.waiting,
        "chunk_bytes": registry.held,
        "resident_bytes": psutil.Process().memory_info().rss,
    }


def metrics(registry: Registry) -> list[Route]:
    """`/metrics`: the streams that were logged, counted, and the load, as Prometheus reads it.

    Raises ValueError where the package prometheus_client is missing.
    """
    try:
        import prometheus_client as prometheus
    except ImportError:
        raise ValueError("--metrics needs a package: pip install prometheus_client") from None
    own = prometheus.CollectorRegistry()
    streams = prometheus.Counter("fkv_streams", "Streams that ended, by how they ended", ["ended"], registry=own)
    chunks = prometheus.Counter("fkv_chunks", "Chunks that were generated", registry=own)
    encoded = prometheus.Counter("fkv_encoded_bytes", "Bytes of encoded chunks that were made", registry=own)
    seconds = prometheus.Histogram(
        "fkv_stream_seconds", "Seconds of a turn", buckets=(1, 5, 15, 60, 300, 1800), registry=own
    )
    for name in load(registry):
        gauge = prometheus.Gauge(f"fkv_{name}", "as in /healthz", registry=own)
        gauge.set_function(lambda name=name: load(registry)[name])

    def count(record: logging.LogRecord) -> bool:
        facts = record.facts  # type: ignore[attr-defined]
        streams.labels(facts["ended"]).inc()
        chunks.inc(facts["chunks"])
        encoded.inc(facts.get("bytes", 0))
        seconds.observe(facts["seconds"])
        return True

    log.addFilter(count)

    async def answer(request: Request) -> Response:
        return Response(prometheus.generate_latest(own), media_type=prometheus.CONTENT_TYPE_LATEST)

    return [Route("/metrics", answer)]
