"""The figures of a comparison: of each stream, of each policy, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from fkv.analysis.adherence import adherence_by_scene
from fkv.analysis.measures import EQUAL_DB, bounded_psnr, chunk_discontinuity
from fkv.comparison import speed_ratios
from fkv.models.base import VideoModel
from fkv.report import FPS_MEANING, chunk_record, device_name, frame_hash, rates, without_speeds
from fkv.stream import Chunk
from fkv.world.oracle import WORDS

from .comparison_plan import ComparisonPlan

Record = dict[str, Any]

# Measured per chunk; a policy's figure is the median over all chunks.
MEASURES = ["fps_denoise", "fps_end_to_end", "ratio_denoise"]
# Quantiles over chunks, which tell noise from a result: column, quantile.
NOISE = {
    f"{name}_{end}": (name, share)
    for name in ("fps_denoise", "ratio_denoise")
    for end, share in (("low", 0.25), ("high", 0.75))
}
# Measured per stream once it is complete; a policy's figure is the mean over streams.
QUALITY = ["psnr_to_reference", "discontinuity", "adherence", *WORDS]


def stream_record(
    policy: str, prompt: str, seed: int, chunks: Sequence[Chunk], reference: Sequence[Chunk] | None
) -> Record:
    """Record what is known of a stream while it runs.

    Args:
        policy: Its policy.
        prompt: Its prompt, or its scenes.
        seed: Its seed.
        chunks: Its chunks so far.
        reference: The chunks of the reference stream so far, by which `ratio_denoise` is measured, see
            `fkv.comparison`; None where streams share chunks and none has a speed.
    """
    record: Record = {
        "policy": policy,
        "prompt": prompt,
        "seed": seed,
        "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
        "chunks": [chunk_record(chunk) | rates([chunk]) for chunk in chunks],
    }
    if reference is None:
        return without_speeds(record)
    for chunk, ratio in zip(record["chunks"], speed_ratios(reference, chunks), strict=True):
        chunk["ratio_denoise"] = ratio
    return record


def quality(chunks: Sequence[Chunk], reference: Sequence[Chunk], readable: bool, events: bool = False) -> Record:
    """Measure a complete stream.

    Args:
        chunks: All its chunks.
        reference: Those of the reference stream.
        readable: Whether the oracle can tell if the video shows what its prompts say.
        events: Whether things may reverse, as in `fkv.analysis.adherence.adherence`.

    Returns:
        psnr_to_reference in dB (None for the reference itself, `EQUAL_DB` for equal frames), discontinuity, adherence
        (the mean share of `WORDS` that the oracle finds at the end of each prompt, None where it cannot tell), the
        share of each word, and the frame hash.
    """
    video = np.concatenate([chunk.video for chunk in chunks])
    other = np.concatenate([chunk.video for chunk in reference])
    found: dict[str, Any] = dict.fromkeys(WORDS)
    if readable:
        by_scene = pd.DataFrame(adherence_by_scene(chunks, events).values())
        found = by_scene.mean().to_dict()
    return {
        "psnr_to_reference": None if chunks is reference else bounded_psnr(video, other),
        "discontinuity": chunk_discontinuity(video, len(chunks)),
        "adherence": float(by_scene.mean(axis=None)) if readable else None,
        **found,
        "frames_sha256": frame_hash(chunks),
    }


def table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per policy: medians over chunks (`MEASURES`) and the middle half of speeds (`NOISE`), both where streams
    were timed, kv_bytes_peak, means over complete streams (`QUALITY`), streams."""
    streams = pd.DataFrame(records).reindex(columns=["policy", "kv_bytes_peak", *QUALITY])
    by_policy = streams.astype(dict.fromkeys(QUALITY, float)).groupby("policy", sort=False)
    chunks = pd.DataFrame([chunk | {"policy": stream["policy"]} for stream in records for chunk in stream["chunks"]])
    by_chunk = chunks.groupby("policy", sort=False)
    timed = [name for name in MEASURES if name in chunks]
    noise = {name: by_chunk[column].quantile(share) for name, (column, share) in NOISE.items() if column in timed}
    medians = by_chunk[timed].median().assign(**noise)
    figures = medians.join(by_policy["kv_bytes_peak"].max()).join(by_policy[QUALITY].mean())
    return figures.assign(streams=by_policy.size())


def spreadsheet(told: dict[str, Any]) -> pd.DataFrame:
    """A report's figures for a CSV file: what the page shows of each policy, and in every row what was compared where.

    Args:
        told: As from `report`.
    """
    figures = pd.DataFrame.from_dict(told["policies"], orient="index").rename_axis("policy")
    equal = figures["psnr_to_reference"] == EQUAL_DB
    settings: dict[str, Any] = {
        "reference": told["reference"],
        "prompts": " | ".join(told["prompts"]),
        "seeds": " ".join(map(str, told["seeds"])),
        "chunks": told["chunks"],
        **{name: told[name] for name in ("model", "device", "ended", "timing") if name in told},
    }
    return figures.assign(
        psnr_to_reference=figures["psnr_to_reference"].astype(object).mask(equal, "equal"), **settings
    )


def report(
    model: VideoModel, plan: ComparisonPlan, records: Sequence[Record], device: torch.device, ended: str
) -> dict[str, Any]:
    """Everything about a comparison that has some records, ready for JSON: figures per policy, then every stream and
    chunk."""
    rows = table(records).astype(object)
    hints = model.hints_of(plan.texts(model.chunk_seconds))
    speeds = {
        **FPS_MEANING,
        "/".join(MEASURES): "medians over chunks",
        "ratio_denoise": "seconds of the reference / of the policy, text and decoding excluded",
        "/".join(NOISE): "between them lies the middle half of the chunks; where 1 does too, the ratio is noise",
    }
    return {
        "model": model.name,
        "device": device_name(device),
        "torch": torch.__version__,
        "ended": ended,
        "reference": plan.policies[0],
        "prompts": list(plan.prompts),
        "seeds": list(plan.seeds),
        "chunks": plan.chunks,
        **({"hints": hints} if hints else {}),
        **(plan.counts(model) if plan.shared else {}),
        "meaning": {
            **({} if plan.shared else speeds),
            "kv_bytes_peak": "the most bytes of K and V cached while a chunk attended",
            "psnr_to_reference": f"dB, mean over streams; {EQUAL_DB:g} stands for equal",
            "discontinuity": "1: moves evenly across chunks",
            "adherence": f"share of {', '.join(WORDS)} that the oracle of the toy world finds in the last "
            "five seconds of each prompt, mean over prompts and streams",
        },
        "policies": rows.where(rows.notna(), None).to_dict("index"),
        "streams": list(records),
    }
