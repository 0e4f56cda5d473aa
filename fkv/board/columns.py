"""The measures of a board: what they are called, how they are written, and which values are better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A measure of videos.

    Args:
        title: As in tables.
        look: How a value is written, a format.
        better: Which values are better; `none` where more is only other.
        help: What it is.
    """

    title: str
    look: str
    better: Literal["high", "low", "zero", "none"]
    help: str


_END = "the last 5 seconds against the first"
MEASURES: dict[str, Measure] = {
    "adherence": Measure(
        "adherence", "{:.2f}", "high", "share of the prompt's words that the oracle of the toy world reads at the end"
    ),
    "clip_consistency": Measure(
        "clip consistency", "{:.3f}", "high", "likeness of 2-second clips to the one before and to the first"
    ),
    "motion": Measure("motion", "{:.3f}", "none", "share of pixels that move; beside consistency, as sinks freeze"),
    "motion_change": Measure("motion change", "{:+.3f}", "zero", f"share of pixels that move, {_END}"),
    "identity": Measure(
        "identity",
        "{:+.3f}",
        "high",
        "likeness of the end to its own opening beyond that to openings of other seeds of the prompt",
    ),
    "hue_kept": Measure("hues kept, %", "{:.1f}", "high", f"overlap of hue histograms, {_END}"),
    "colour_drift": Measure("colour drift", "{:.3f}", "low", f"distance of RGB histograms, 0 to 1, {_END}"),
    "saturation_change": Measure("saturation change", "{:+.3f}", "zero", f"of HSV, 0 to 1, {_END}"),
    "detail_change": Measure("detail change", "{:+.2f}", "zero", f"absolute Laplacian in grey levels, {_END}"),
    "brightness_change": Measure("brightness change", "{:+.1f}", "zero", f"grey levels, {_END}"),
    "discontinuity": Measure("discontinuity", "{:.2f}", "low", "how much the greatest movements stand out, 1 is even"),
    "flicker": Measure("flicker", "{:.3f}", "low", "grey levels by which frames differ from their neighbours"),
    **{
        f"vbench.{name}": Measure(f"VBench {title}", "{:.4f}", better, f"VBench-Long, {title}")
        for name, title, better in (
            ("subject_consistency", "subject consistency", "high"),
            ("subject_clip2clip", "subject, clip to clip", "high"),
            ("background_consistency", "background consistency", "high"),
            ("background_clip2clip", "background, clip to clip", "high"),
            ("motion_smoothness", "motion smoothness", "high"),
            ("dynamic_degree", "dynamic degree", "none"),
            ("aesthetic_quality", "aesthetic quality", "high"),
            ("imaging_quality", "imaging quality", "high"),
        )
    },
}
