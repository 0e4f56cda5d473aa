"""Differences between what was recorded and what is made, and whether they are within tolerances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkv.stream import Chunk

Report = dict[str, Any]
"""Differences by name, each with `max` and `ok`; reports may hold reports."""


def _worst(made: Iterable[Tensor], expected: Tensor) -> list[float]:
    return [float((ours.cpu() - theirs).abs().max()) for ours, theirs in zip(made, expected, strict=True)]


def latents(chunks: Sequence[Chunk], expected: Tensor, atol: float) -> Report:
    """The largest difference of the latents, per chunk and in all."""
    worst = _worst((chunk.latents[0] for chunk in chunks), expected)
    return {"per_chunk": worst, **within(float(np.max(worst)), atol)}


def steps(chunks: Sequence[Chunk], expected: dict[str, Tensor], atol: float) -> Report:
    """The same of what each denoising step predicted, where it was recorded."""
    if "x0_steps" not in expected:
        return {}
    worst = _worst((torch.stack([x0[0] for x0 in chunk.x0_steps]) for chunk in chunks), expected["x0_steps"])
    return {"x0_steps": {"per_chunk": worst, **within(float(np.max(worst)), atol)}}


def within(value: float, limit: float) -> Report:
    """A difference, and whether it is within a limit."""
    return {"max": value, "ok": value <= limit}


def close(ours: np.ndarray, theirs: np.ndarray, atol: float) -> Report:
    """The largest difference of two arrays, infinite where NaN stands in one alone, and whether `atol` allows it."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return within(float("inf"), atol)
    return within(float(np.nanmax(np.abs(ours - theirs), initial=0)), atol)


def equal(ours: Any, theirs: Any) -> Report:
    """Whether two arrays are equal."""
    return {"ok": bool(np.array_equal(ours, theirs))}


def oks(report: object) -> Iterable[bool]:
    """Every `ok` of a report."""
    if isinstance(report, dict):
        for key, value in report.items():
            yield from (value,) if key == "ok" else oks(value)


def widen(report: Report, limit: float) -> None:
    """Take differences of at most `limit` as none."""
    for value in report.values():
        if isinstance(value, dict):
            if "max" in value:
                value["ok"] = value["ok"] or value["max"] <= limit
            widen(value, limit)
