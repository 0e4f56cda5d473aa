"""Take the README's pictures from a running studio: `python app.py`, then `python assets/screenshot.py`."""

from __future__ import annotations

import argparse
import os
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def opened(browser: Browser, url: str, theme: str) -> Page:
    """The page in `theme`."""
    page = browser.new_page(viewport={"width": 1440, "height": 1440}, color_scheme=theme)
    page.set_default_timeout(300_000)
    page.add_init_script("localStorage.setItem('fkv-tour', 'seen')")  # no card of the tour in the pictures
    page.goto(f"{url}/?__theme={theme}")
    page.wait_for_function("window.fkvStudio")
    return page


def photographed(page: Page, name: str) -> Path:
    """Photograph the page as assets/screenshots/`name`.png, in a palette of 256 colours: a third of the size."""
    path = FOLDER / f"{name}.png"
    picture = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)  # keeps rare colours
    return path


def stopped(page: Page, name: str) -> Path:
    """Photograph the page as assets/screenshots/`name`.png, then stop the stream and close it."""
    path = photographed(page, name)
    page.evaluate("document.querySelector('#fkv-stop').click()")
    page.wait_for_function("window.fkvStudio.state === 'done'")
    page.close()
    return path


def live(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """Stream side by side and change the prompt, until `chunks` are on screen."""
    page = opened(browser, url, theme)
    page.get_by_role("button", name="Go live", exact=True).first.click()
    page.wait_for_function(f"!window.fkvStudio.player.loop && window.fkvStudio.player.rounds.length >= {chunks // 2}")
    page.get_by_label("Prompt", exact=True).fill("a cyan star drifting over the sea at night")
    page.get_by_role("button", name="Change prompt").click()
    page.wait_for_function(f"!window.fkvStudio.player.loop && window.fkvStudio.player.at >= {chunks - 1}")
    return stopped(page, f"live-{theme}")


def heads(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """Watch a static head of the hybrid stream, with the threshold where it would change some roles."""
    page = opened(browser, url, theme)
    page.get_by_role("tab", name="Heads").click()
    page.locator(".fkv-heads-go").click()
    page.locator('.fkv-cell[data-role="static"]').nth(4).click()
    page.wait_for_function(f"!window.fkvStudio.player.loop && window.fkvStudio.player.at >= {chunks - 1}")
    page.locator(".fkv-threshold input").fill("0.65")
    page.wait_for_function("document.querySelector('.fkv-threshold output').textContent === '0.65'")
    return stopped(page, f"heads-{theme}")


def atlas(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """The role atlas, with no stream."""
    page = opened(browser, url, theme)
    page.get_by_role("tab", name="Atlas").click()
    page.wait_for_function("document.querySelectorAll('.fkv-atlas .legend').length === 2")
    path = photographed(page, f"atlas-{theme}")
    page.close()
    return path


def compare(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """A finished comparison, as the form begins."""
    page = opened(browser, url, theme)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator('.fkv-progress[data-state="done"]').wait_for()
    page.locator("#fkv-pareto .textpoint").nth(2).wait_for()
    page.locator(".fkv-earlier summary").click()
    path = photographed(page, f"compare-{theme}")
    page.close()
    return path


def explore(browser: Browser, url: str, theme: str, chunks: int) -> Path:
    """A finished search around a change of the prompt."""
    page = opened(browser, url, theme)
    page.get_by_role("tab", name="Explore").click()
    form = page.locator("#fkv-explore-form")
    form.locator("button.label-wrap").click()
    form.get_by_label("What changes at which chunk").fill("3: a blue star drifting over the sea at night")
    form.get_by_label("Chunks", exact=True).fill("4")
    form.get_by_role("button", name="Explore").click()
    page.locator('.fkv-explore[data-state="done"]').wait_for()
    page.wait_for_function("[...document.querySelectorAll('.fkv-node canvas')].every((each) => each.width > 100)")
    page.wait_for_timeout(3000)  # until the future plays
    path = photographed(page, f"explore-{theme}")
    page.close()
    return path


TABS = {"live": live, "heads": heads, "atlas": atlas, "explore": explore, "compare": compare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--themes", nargs="+", choices=("light", "dark"), default=("light", "dark"))
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=list(TABS))
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=FLAGS
        )
        for theme in args.themes:
            for tab in args.tabs:
                print(TABS[tab](browser, args.url, theme, args.chunks))
        browser.close()


if __name__ == "__main__":
    main()
