"""What all figures of benchmarks have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def drawn(
    report: Mapping[str, Any],
    target: Path,
    columns: int = 2,
    size: tuple[float, float] = (11, 4.6),
    title: str = "{model}, {device}, {date}",
    bottom: float = 0.0,
    **options: Any,
) -> Iterator[Any]:
    """Panels side by side, which are written to a file when the block ends without an error.

    Args:
        report: Of `fkv bench`: it names the model, the device and the date above the panels.
        target: The file to write: .png, .svg or .pdf.
        columns: How many panels; one is given as it is, several as an array.
        size: Width and height in inches.
        title: Above the panels.
        bottom: The share of the height that stays free below them.
        options: Of `matplotlib.pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    facts = {"model": report["model"], "device": report["hardware"]["device"], "date": report["date"][:10]}
    with sns.axes_style("whitegrid"):
        canvas, panels = plt.subplots(1, columns, figsize=size, **options)
        try:
            yield panels
            canvas.suptitle(title.format(**facts), fontsize=9)
            canvas.tight_layout(rect=(0, bottom, 1, 1))
            canvas.savefig(target, dpi=160)
        finally:
            plt.close(canvas)
