"""How many frames a second two streams side by side show, in headless Chromium on the same machine or without one.

    python -m tests.load.shown [--root FOLDER] [--chunks 40] [--without-browser] [--precision fp32]

FOLDER is the repository whose studio is measured, this one by default: so two versions can be measured in turn. The
figures of a stream are from its first frame to its last one. Without a browser a chunk counts when its file is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fkv.studio.media.protocol import unpack

from .client import PROMPT, ROOT, Studio, Visitor

PATIENCE = 600.0  # seconds for a run
WATCH = """() => {
  const seen = { A: [], B: [] };
  window.shown = seen;
  const before = { A: 0, B: 0 };
  const look = (now) => {
    const { painted, state, player } = window.fkvStudio;
    for (const name of player.loop || state === "recorded" ? [] : ["A", "B"]) {
      if (painted[name] > before[name]) seen[name].push([now / 1000, painted[name] - before[name]]);
      before[name] = painted[name];
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
"""Notes when frames are painted of a run of one's own, and how many since the last time."""

LAST = "Object.values(window.shown).map((frames) => frames.at(-1)?.[0] ?? 0)"

Seen = Mapping[str, Sequence[tuple[float, int]]]
"""By stream, times in seconds and how many frames came."""


def in_browser(address: str, chunks: int) -> Seen:
    """Watch a run in Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script("localStorage.setItem('fkv-tour', 'seen')")
        page.goto(f"{address}/?view=AB&length={chunks}&seed=0")
        page.wait_for_function("window.fkvStudio?.painted.A > 0")
        page.evaluate(WATCH)
        page.get_by_role("button", name="Go live", exact=True).first.click()
        page.wait_for_function("['done', 'error'].includes(window.fkvStudio.state)")
        page.wait_for_function(f"performance.now() / 1000 - Math.max(...{LAST}) > 2")
        return page.evaluate("window.shown")


def without_browser(address: str, chunks: int) -> Seen:
    """Fetch the files of a run as they come."""
    seen: dict[str, list[tuple[float, int]]] = {"A": [], "B": []}
    with Visitor(address) as visitor:
        fetched = 0
        event = visitor.event("fkv-go")
        visitor.join(event, visitor.form(event, prompt=PROMPT, chunks=chunks)).raise_for_status()
        for first, *_ in visitor.outputs():
            manifest = first.get("value", first) if isinstance(first, dict) else {}
            for number in range(fetched, manifest.get("files", manifest.get("chunks", 0))):
                record, _ = unpack(visitor.chunk(manifest["run"], number).content)
                for name, own in record["streams"].items():
                    seen[name].append((time.monotonic(), own["video_frames"]))
                fetched = number + 1
    return seen


def figures(seen: Seen) -> str:
    """One line per stream."""
    lines = []
    for name, found in seen.items():
        times, counts = np.array(found).T
        rate = counts[1:].sum() / (times[-1] - times[0])
        gaps = 1000 * np.diff(times)
        lines.append(
            f"{name}: {rate:.1f} frames a second, {counts.sum():.0f} frames in {times[-1] - times[0]:.1f} s; "
            f"between two {np.median(gaps):.0f} ms, 99 % within {np.percentile(gaps, 99):.0f} ms"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one run after a short one that warms up."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.shown", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--without-browser", action="store_true")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="fkv-load-") as folder:
        studio = Studio(Path(folder), ["--precision", args.precision], root=args.root.resolve())
        try:
            studio.wait()
            without_browser(studio.address, 2)
            watch = without_browser if args.without_browser else in_browser
            print(f"{args.root}, {'without' if args.without_browser else 'with'} a browser")
            print(figures(watch(studio.address, args.chunks)))
        finally:
            studio.end()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
