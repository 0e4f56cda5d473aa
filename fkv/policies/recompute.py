"""No cache at all: every earlier chunk is computed anew before each chunk."""

from dataclasses import dataclass

from .full import Full


@dataclass(frozen=True)
class Recompute(Full):
    """Shows the same pictures as `full` and pays for the history again and again: what a cache saves."""

    name = "recompute"
    help = "no cache: recompute all earlier chunks for each chunk; the cost that caching saves"
    paper = "arXiv 2411.16375"
    caches = "none"
