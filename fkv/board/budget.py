"""Settings under which rules read no more than a number of latent frames, for the track of equal budgets."""

from __future__ import annotations

from collections.abc import Callable

from fkv import policies
from fkv.models.base import VideoModel
from fkv.models.page_tables import footprint

SETTLED = range(40, 43)  # chunks in which a rule reads what it goes on reading; some alternate


def _deep_forcing(frames: int) -> str:
    """A window whose parts have the proportions of the released one, as far as they fit."""
    capacity = frames - frames // 4
    sink = max(0, min(frames // 2, capacity - 5))
    return f"deep-forcing:window_frames={frames},sink_frames={sink},capacity_frames={capacity}"


def _context_forcing(frames: int) -> str:
    """The released sink and window beside a smaller memory; the sink goes where not even one frame is left for it."""
    return f"context-forcing:sink_frames={max(0, min(3, frames - 7))},memory_frames={max(1, frames - 9)}"


SETTINGS: dict[str, Callable[[int], str]] = {
    **{
        name: f"{name}:window_frames={{}}".format
        for name in (
            "sliding-window",
            "longlive",
            "infinity-rope",
            "near-sink",
            "recency",
            "rolling-sink",
            "mem-rope",
            "ema-sink",
            "memflow",
            "self-gradient",
        )
    },
    "forcing-kv": "forcing-kv:anchor_frames={0},dynamic_anchor_frames={0}".format,
    "deep-forcing": _deep_forcing,
    "deep-sink": lambda frames: f"deep-sink:sink_frames={frames // 2},window_frames={frames}",
    "relax-forcing": lambda frames: f"relax-forcing:memory_frames={frames - 6},candidates={max(4, frames - 6)}",
    "tether-cache": "tether-cache:budget_frames={}".format,
    "context-forcing": _context_forcing,
    "shot-sink": lambda frames: f"shot-sink:sink_frames={min(8, frames - 4)},window_frames={frames}",
    "fade-mem": lambda frames: f"fade-mem:slots={frames - 3}",
    "ca2-vdm": lambda frames: f"ca2-vdm:prefix_frames={(frames - 3) // 3 * 3}",
    "window-kv": lambda frames: f"window-kv:budget_frames={float(frames - 4)}",
    "pyramid-forcing": "pyramid-forcing:added_frames={}".format,
}
"""Rules that can read any number of frames: their text for about as many.

Dummy Forcing is not among them: how much it reads follows from the video, and only in steps of a chunk.
"""


def fitted(model: VideoModel, name: str, frames: int) -> str | None:
    """The largest setting of a rule whose denoising passes read at most so many latent frames, the chunk's included.

    Args:
        model: What generates.
        name: A key of `SETTINGS`.
        frames: The budget, on average over heads.

    Returns:
        A policy as `fkv.policies.write` writes it, None where no setting reads so few.
    """
    dtype = model.transformer.dtype
    for setting in range(2 * frames, 0, -1):
        try:
            policy = policies.parse(SETTINGS[name](setting))
            if all(footprint(model.geometry, policy, model.roles, at, dtype).denoise <= frames for at in SETTLED):
                return policies.write(policy)
        except ValueError:  # the rule does not go with this setting
            continue
    return None
