"""Chunks and streams as JSON records: the numbers that the command line prints and the page charts."""

from __future__ import annotations

import hashlib
import platform
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fkv.models.base import VideoModel

from .stream import STAGES, Chunk

FPS_MEANING = {
    "fps_denoise": (
        "video frames / seconds of denoising, context pass and cache rebuilds; text encoding and decoding excluded"
    ),
    "fps_end_to_end": "video frames / seconds of all stages, decoding included",
}

SPEEDS = ("fps_denoise", "fps_end_to_end", "fps_meaning", "denoise_s_median", *(f"{stage}_s" for stage in STAGES))
"""Fields of records that are speeds or seconds."""


def device_name(device: torch.device | str) -> str:
    """The device in words, to stand beside every number measured on it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()} CPU, {threads} {'thread' if threads == 1 else 'threads'}"


@cache
def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def frame_hash(chunks: Sequence[Chunk]) -> str | None:
    """Short SHA-256 of all video frames in order: equal hashes mean equal frames; None where nothing was decoded."""
    videos = [chunk.video for chunk in chunks if chunk.video is not None]
    digest = hashlib.sha256()
    for video in videos:
        digest.update(video.tobytes())
    return digest.hexdigest()[:16] if videos else None


def chunk_record(chunk: Chunk) -> dict[str, Any]:
    """One chunk as JSON: `STAGE_s` in seconds, bytes, tokens held and key lengths read while it attended.

    `kv_bytes` is what the chunk attends to in all layers, `kv_bytes_between` what stays until the next chunk, and
    `kv_bytes_allocated` what the buffers take. `rows` is there where several streams were computed together.
    `kv_tokens` and `kv_tokens_read` have entries for static and dynamic heads under every policy.
    """
    return {
        "index": chunk.index,
        "policy": chunk.policy,
        "steps": chunk.steps,
        "prompt": chunk.prompt,
        "events": list(chunk.events),
        **{f"{stage}_s": getattr(chunk.timings, stage) for stage in STAGES},
        "kv_bytes": chunk.kv_bytes,
        "kv_bytes_between": chunk.kv_bytes_between,
        "kv_bytes_allocated": chunk.kv_bytes_allocated,
        "kv_tokens": _by_role(chunk.kv_tokens),
        "kv_tokens_read": _by_role(chunk.kv_tokens_read),
        "context_frames": chunk.context_frames,
        "video_frames": chunk.video_frames,
        **({"rows": chunk.rows} if chunk.rows > 1 else {}),
    }


def without_speeds(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a stream, or of its chunks, that shared passes with others: it has no speed of its own."""
    kept = {name: value for name, value in record.items() if name not in SPEEDS}
    if "chunks" in kept:
        kept["chunks"] = [without_speeds(chunk) for chunk in kept["chunks"]]
    return kept


def _by_role(tokens: dict[str, int]) -> dict[str, int]:
    """Tokens by head group, with entries for static and dynamic heads."""
    every = tokens.get("all", 0)
    return {"static": tokens.get("static", every), "dynamic": tokens.get("dynamic", every)} | tokens


def fps(video_frames: int, generate_s: float, total_s: float) -> dict[str, float | None]:
    """`fps_denoise` and `fps_end_to_end` as `FPS_MEANING` defines them; None where nothing was decoded.

    Args:
        video_frames: Decoded frames.
        generate_s: Seconds of denoising, context pass and cache rebuilds.
        total_s: Seconds of all stages.
    """
    if not video_frames:
        return {"fps_denoise": None, "fps_end_to_end": None}
    return {"fps_denoise": video_frames / generate_s, "fps_end_to_end": video_frames / total_s}


def rates(chunks: Sequence[Chunk]) -> dict[str, float | None]:
    """`fps_denoise` and `fps_end_to_end` over chunks; None where nothing was decoded."""
    return fps(
        sum(chunk.video_frames for chunk in chunks),
        sum(chunk.timings.generate for chunk in chunks),
        sum(chunk.timings.total for chunk in chunks),
    )


def stream_record(chunks: Sequence[Chunk], model: VideoModel, seed: int, device: torch.device | str) -> dict[str, Any]:
    """A whole stream as JSON: settings, hints on its prompts, rates, peak of the cache, and every chunk."""
    hints = model.hints_of(chunk.prompt for chunk in chunks if chunk.prompt)
    return {
        "model": model.name,
        **({"adapters": list(model.adapters)} if model.adapters else {}),
        **({"assumed": list(model.assumed)} if model.assumed else {}),
        "policy": chunks[-1].policy,
        "prompt": chunks[0].prompt,
        **({"hints": hints} if hints else {}),
        "seed": seed,
        "device": device_name(device),
        "precision": model.precision,
        "torch": torch.__version__,
        **rates(chunks),
        "fps_meaning": FPS_MEANING,
        "denoise_s_median": statistics.median(chunk.timings.generate for chunk in chunks),
        "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
        "kv_bytes_allocated_peak": max(chunk.kv_bytes_allocated for chunk in chunks),
        "frames_sha256": frame_hash(chunks),
        "chunks": [chunk_record(chunk) for chunk in chunks],
    }
