"""One video of a board: what it measures, and what generating it took."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from fkv import policies
from fkv.analysis import features as feature
from fkv.analysis.adherence import WINDOW_SECONDS, adherence
from fkv.analysis.features import Features
from fkv.analysis.held_out import rendered
from fkv.analysis.measures import change, drift, ends, flicker, hue_kept, jumps, movement, per_second
from fkv.models.base import VideoModel
from fkv.models.page_tables import footprint
from fkv.policies.ablations import RandomRoles
from fkv.policies.pyramid_forcing import PyramidForcing, classes_provenance
from fkv.records import Record
from fkv.report import device_name
from fkv.stream import Chunk, Stream
from fkv.video import ENDING, Mp4Writer
from fkv.world.captions import Scene
from fkv.xray import xray

from .spec import TRUTH, scene_of

DIGITS = 5  # of measures in records


def measured(
    video: np.ndarray, fps: int, chunks: int, features: Features, scene: Scene | None = None, events: bool = False
) -> Record:
    """Measure a video.

    Args:
        video: uint8 [T, H, W, 3].
        fps: Video frames per second.
        chunks: Its chunks.
        features: What likeness is measured by.
        scene: What the oracle should find, None for nothing.
        events: As in `fkv.analysis.adherence.adherence`.

    Returns:
        `measures` as in `fkv.board.columns`, but identity, which takes the other seeds; `series`, values second by
        second; `opening` and `ending`, the features of both ends.
    """
    moved, share = movement(video)
    series = per_second(video, fps)
    clips = feature.of_clips(video, fps, features)
    opening, ending = map(feature.mean_of, ends(clips, math.ceil(WINDOW_SECONDS / feature.CLIP_SECONDS)))
    found = adherence(video, scene, len(video) / fps, events) if scene else {}
    adheres = {mark: statistics.mean(words.values()) for mark, words in found.items()}
    measures: dict[str, float | None] = {
        "adherence": list(adheres.values())[-1] if adheres else None,
        "hue_kept": hue_kept(video, fps, WINDOW_SECONDS),
        "colour_drift": drift(video, fps, WINDOW_SECONDS).colours,
        **{f"{name}_change": change(values, WINDOW_SECONDS) for name, values in series.items()},
        "motion": float(share.mean()),
        "motion_change": change(share, WINDOW_SECONDS * fps),
        "clip_consistency": feature.clip_consistency(clips),
        "discontinuity": jumps(moved, chunks),
        "flicker": flicker(video),
    }
    return {
        "measures": {name: None if value is None else round(value, DIGITS) for name, value in measures.items()},
        "adherence": adheres,
        "series": {name: values.round(3).tolist() for name, values in series.items()},
        "opening": opening.round(4).tolist(),
        "ending": ending.round(4).tolist(),
    }


def stream_record(
    model: VideoModel, policy: str, prompt: str, seed: int, seconds: float, features: Features
) -> tuple[Record, np.ndarray]:
    """Generate a video and measure it.

    Args:
        model: What generates; it has a decoder.
        policy: The rule, or `TRUTH`.
        prompt: What the video shows.
        seed: Of the noise.
        seconds: Length of the video.
        features: What likeness is measured by.

    Returns:
        What `measured` returns, with `frames_sha256`, `costs` (None for the truth, see `result.Costs`) and `xray`, the
        page tables of the last chunk; and the video.

    Raises:
        ValueError: The model has no decoder.
    """
    chunks = math.ceil(seconds / model.chunk_seconds)
    scene = scene_of(model, prompt)
    costs, tables = None, None
    if policy == TRUTH:
        if scene is None:
            raise ValueError(f"the toy world cannot draw {prompt!r:.80}")
        video = rendered(scene, chunks, seed)
    else:
        video, costs, tables = _generated(model, policy, prompt, seed, chunks)
    record = measured(video, model.fps, chunks, features, scene, model.transformer.events)
    digest = sha256(video.tobytes()).hexdigest()[:16]
    return record | {"frames_sha256": digest, "costs": costs, "xray": tables}, video


def _generated(
    model: VideoModel, policy: str, prompt: str, seed: int, chunks: int
) -> tuple[np.ndarray, Record, dict[str, Any]]:
    """The video, what it took, and the page tables of the last chunk."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    stream = Stream(model, policies.parse(policy), prompt, seed)
    videos, generate, total, kv_bytes, resident = [], [], [], 0, 0
    for _ in range(chunks):
        chunk = stream.step()
        if chunk.video is None:
            raise ValueError(f"model {model.name!r} has no decoder, so there is no video to measure")
        videos.append(chunk.video)
        generate.append(1000 * chunk.timings.generate)
        total.append(1000 * (chunk.timings.generate + chunk.timings.decode))
        kv_bytes = max(kv_bytes, chunk.kv_bytes)
        resident = max(resident, psutil.Process().memory_info().rss)
    cuda = model.device.type == "cuda"
    costs = what_it_reads(model, policy, chunk) | {
        "passes": chunk.passes,
        "kv_bytes": kv_bytes,
        "peak_bytes": torch.cuda.max_memory_allocated(model.device) if cuda else resident,
        "ms_generate": statistics.median(generate),
        "ms_total": statistics.median(total),
        "chunk_frames": chunk.video_frames,
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "load": load,
        "torch": torch.__version__,
    }
    return np.concatenate(videos), costs, {"frames": chunk.frames[-1] + 1, "groups": xray(chunk)}


def what_it_reads(model: VideoModel, policy: str, chunk: Chunk) -> Record:
    """What a rule reads in the last chunk of a stream, and at which positions.

    Returns:
        `frames_denoise`, latent frames that the last denoising pass read, on average over heads; `frames_context`, the
        same of the context pass, counted from page tables, None without such a pass; `positions`, true or moved, and
        `span`, from the oldest position read to the newest; `granularity`; `calibration`.
    """
    rule = policies.parse(policy)
    heads = {name: sum(map(len, layers)) for name, layers in chunk.heads.items()}
    frame = model.geometry.tokens_per_frame * sum(heads.values())
    denoise = sum(heads[name] * count for name, count in chunk.kv_tokens_read.items()) / frame
    held = footprint(model.geometry, rule, model.roles, chunk.index + 1, model.transformer.dtype)
    read = [pages for name, pages in chunk.read.items() if heads[name] and len(pages)]
    span = max(pages.position.max() for pages in read) - min(pages.position.min() for pages in read) + 1
    moved = any((pages.position != pages.frame).any() for pages in read)
    groups = len(read)
    return {
        "frames_denoise": round(denoise, 2),
        "frames_context": None if held.context is None else round(held.context, 2),
        "positions": "moved" if moved else "true",
        "span": int(span),
        "granularity": f"{groups} head group{'s' if groups > 1 else ''}, {chunk.segments} page"
        f"{'s' if chunk.segments > 1 else ''} per frame",
        "calibration": calibration(model, rule),
    }


def calibration(model: VideoModel, rule: policies.Policy) -> str:
    """The offline statistics that a rule needs, and where they come from, in words."""
    try:
        rule.groups(model.geometry, None)
        return "none"
    except ValueError:
        what, found, rule = "head roles", model.roles.provenance if model.roles else {}, rule.unwrapped
    if isinstance(rule, RandomRoles):
        return f"random head roles (seed {rule.roles_seed}), as many static ones per layer as the model's"
    if isinstance(rule, PyramidForcing) and model.roles and (classes := classes_provenance(model.roles)):
        what, found = "head classes", classes
    prompts = f", from {len(found['prompts'])} prompts" if "prompts" in found else ""
    source = str(found.get("source", "of unknown origin")).replace("analysis.profile", "fkv profile")  # its old name
    return f"{what}: {source}{prompts}"


def mp4_of(video: np.ndarray, fps: int) -> bytes:
    """The bytes of an MP4 file of a video."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"video{ENDING}"
        with Mp4Writer(file, fps) as writer:
            writer.write(video)
        return file.read_bytes()
