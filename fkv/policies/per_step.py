"""One cache for each denoising step instead of one for all."""

from __future__ import annotations

from dataclasses import dataclass

from .full import Full


@dataclass(frozen=True)
class PerStep(Full):
    """Attend, at each denoising step, to earlier chunks as they were at that step (Ca2-VDM, arXiv 2411.16375).

    There is no context pass, and there are as many caches as steps.
    """

    name = "per-step"
    help = "one cache per denoising step and no context pass; shows how much memory a shared cache saves"
    paper = "arXiv 2411.16375"
    family = "baseline"
    reading = "every earlier frame + C3"
    checked = ""
    caches = "per-step"
