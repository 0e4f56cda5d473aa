"""The measures of a board: what they are called, how they are written, and which values are better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["high", "low", "zero", "none"]


@dataclass(frozen=True)
class Measure:
    """A measure of videos.

    Args:
        title: As in tables.
        digits: After the point.
        better: Which values are better; `none` where more is only other.
        help: What it is.
    """

    title: str
    digits: int
    better: Better
    help: str

    def write(self, value: float) -> str:
        """Write a value; changes have a sign."""
        return f"{value:{'+' if self.better == 'zero' else ''}.{self.digits}f}"


VBENCH = "vbench."  # begins the names of VBench-Long's dimensions
_END = "the last 5 seconds against the first"
MEASURES: dict[str, Measure] = {
    "adherence": Measure(
        "adherence", 2, "high", "share of the prompt's words that the oracle of the toy world reads at the end"
    ),
    "clip_consistency": Measure(
        "clip consistency", 3, "high", "likeness of 2-second clips to the one before and to the first"
    ),
    "motion": Measure("motion", 3, "none", "share of pixels that move; beside consistency, as sinks freeze"),
    "motion_change": Measure("motion change", 3, "zero", f"share of pixels that move, {_END}"),
    "identity": Measure(
        "identity",
        3,
        "high",
        "how much more the end is like the video's own opening than like the openings of the prompt's other seeds",
    ),
    "hue_kept": Measure("hues kept, %", 1, "high", f"overlap of hue histograms, {_END}"),
    "colour_drift": Measure("colour drift", 3, "low", f"distance of RGB histograms, 0 to 1, {_END}"),
    "saturation_change": Measure("saturation change", 3, "zero", f"of HSV, 0 to 1, {_END}"),
    "detail_change": Measure("detail change", 2, "zero", f"absolute Laplacian in grey levels, {_END}"),
    "brightness_change": Measure("brightness change", 1, "zero", f"grey levels, {_END}"),
    "discontinuity": Measure("discontinuity", 2, "low", "how much the greatest movements stand out, 1 is even"),
    "flicker": Measure("flicker", 3, "low", "grey levels by which frames differ from their neighbours"),
    **{
        f"{VBENCH}{name}": Measure(
            f"VBench {title}", 4, "none" if name == "dynamic_degree" else "high", f"VBench-Long, {title}"
        )
        for name, title in {
            "subject_consistency": "subject consistency",
            "subject_clip2clip": "subject, clip to clip",
            "background_consistency": "background consistency",
            "background_clip2clip": "background, clip to clip",
            "motion_smoothness": "motion smoothness",
            "dynamic_degree": "dynamic degree",
            "aesthetic_quality": "aesthetic quality",
            "imaging_quality": "imaging quality",
        }.items()
    },
}
