"""How the studio is doing, over HTTP: `/healthz`, and `/metrics` for Prometheus where the operator wants it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fkv.models.base import VideoModel
from fkv.studio.live import telemetry
from fkv.studio.live.sessions import Registry

began = time.monotonic()


def health(model: VideoModel, registry: Registry) -> Route:
    """`/healthz`: that the studio answers, and how busy it is."""

    async def healthz(request: Request) -> Response:
        status = {"status": "ok", "model": model.name, "uptime_s": round(time.monotonic() - began, 1)}
        return JSONResponse(status | load(registry))

    return Route("/healthz", healthz)


def load(registry: Registry) -> dict[str, int]:
    """Runs that have their turn and that wait for it, bytes of encoded chunks, and resident bytes of the process."""
    return {
        "running": registry.queue.running,
        "waiting": registry.queue.waiting,
        "chunk_bytes": registry.kept_bytes,
        "resident_bytes": psutil.Process().memory_info().rss,
    }


def metrics(registry: Registry) -> list[Route]:
    """`/metrics`: the logged runs, counted, and the load, in the form that Prometheus reads.

    Raises:
        ValueError: If the package prometheus_client is missing.
    """
    try:
        import prometheus_client as prometheus
    except ImportError:
        raise ValueError("--metrics needs a package: pip install prometheus_client") from None
    collected = prometheus.CollectorRegistry()
    streams = prometheus.Counter("fkv_streams", "Streams that ended, by how they ended", ["ended"], registry=collected)
    chunks = prometheus.Counter("fkv_chunks", "Chunks that were generated", registry=collected)
    encoded = prometheus.Counter("fkv_encoded_bytes", "Bytes of chunks that were encoded", registry=collected)
    buckets = (1, 5, 15, 60, 300, 1800)
    seconds = prometheus.Histogram("fkv_stream_seconds", "Seconds of a turn", buckets=buckets, registry=collected)

    def reading(name: str) -> Callable[[], float]:
        return lambda: load(registry)[name]

    for name in load(registry):
        gauge = prometheus.Gauge(f"fkv_{name}", "as in /healthz", registry=collected)
        gauge.set_function(reading(name))

    def count(record: logging.LogRecord) -> bool:
        facts = record.facts  # type: ignore[attr-defined]
        streams.labels(facts["ended"]).inc()
        chunks.inc(facts["chunks"])
        encoded.inc(facts["bytes"])
        seconds.observe(facts["seconds"])
        return True

    telemetry.log.addFilter(count)

    async def answer(request: Request) -> Response:
        return Response(prometheus.generate_latest(collected), media_type=prometheus.CONTENT_TYPE_LATEST)

    return [Route("/metrics", answer)]
