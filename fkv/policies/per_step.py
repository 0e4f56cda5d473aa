"""One cache for each denoising step instead of one for all."""

from dataclasses import dataclass

from .full import Full


@dataclass(frozen=True)
class PerStep(Full):
    """Each step attends to what earlier chunks looked like at the same step: no context pass, as many caches as steps."""

    name = "per-step"
    help = "a cache per denoising step, no context pass: what sharing one cache saves in memory"
    paper = "arXiv 2411.16375"
    caches = "per-step"
