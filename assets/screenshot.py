"""Take the README's pictures from a running studio: `python app.py`, then `python assets/screenshot.py`."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def take(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """Stream side by side until `chunks` are on screen, photograph the page in `theme`, stop."""
    page = browser.new_page(viewport={"width": 1440, "height": 1440}, color_scheme=theme)
    page.set_default_timeout(300_000)
    page.goto(f"{url}/?__theme={theme}")
    page.wait_for_function("window.fkvStage")
    page.get_by_role("button", name="Go live", exact=True).first.click()
    page.wait_for_function(f"window.fkvStage.player.rounds.length >= {chunks // 2}")
    page.get_by_label("Prompt", exact=True).fill("a cyan star drifting over the sea at night")
    page.get_by_role("button", name="Change prompt").click()
    page.wait_for_function(f"window.fkvStage.player.at >= {chunks - 1}")
    path = FOLDER / f"live-{theme}.png"
    page.screenshot(path=path)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_function("window.fkvStage.state === 'done'")
    page.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--chunks", type=int, default=16)
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=FLAGS)
        for theme in ("light", "dark"):
            print(take(browser, args.url, theme, args.chunks))
        browser.close()


if __name__ == "__main__":
    main()
