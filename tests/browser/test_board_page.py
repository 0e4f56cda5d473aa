"""The Board tab in a real browser: the recorded board, limits, order, and a rule that is opened."""

from __future__ import annotations

import pytest

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture
def board(visit):
    """Opens the Board tab of a new visitor."""

    def open_tab():
        tab = visit()
        tab.page.get_by_role("tab", name="Board").click()
        tab.page.locator(".fkv-board tbody tr").first.wait_for()
        tab.page.locator('.fkv-board select[name="board"]').select_option("tiny-small")
        return tab.page

    return open_tab


def rules(page) -> list[str]:
    return page.locator(".fkv-board tbody th button").all_inner_texts()


def slide(page, name: str, value: int) -> None:
    page.locator(f'.fkv-board input[name="{name}"]').evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def test_a_recorded_board_is_sorted_and_limited(board):
    page = board()
    assert {"full", "forcing-kv", "longlive", "renders"} <= set(rules(page))
    assert "So few prompts have no intervals" in page.locator(".fkv-said").inner_text()
    page.locator('.fkv-board select[name="by"]').select_option("flicker")
    assert rules(page)[0] == "renders"
    assert page.locator(".fkv-board thead th").nth(1).inner_text() == "flicker"
    expect(page.locator(".fkv-best")).to_contain_text("Best by flicker: ")
    page.locator('.fkv-board input[name="text"]').fill("longlive")
    assert set(rules(page)) == {"longlive", "longlive:window_frames=7"}
    page.locator('.fkv-board input[name="text"]').fill("")
    slide(page, "frames", 50)  # half of what full reads
    assert "full" not in rules(page) and "longlive" in rules(page)
    slide(page, "frames", 100)
    page.locator('.fkv-board select[name="track"]').select_option("same budget: 7 frames")
    assert set(rules(page)) == {"longlive:window_frames=7", "sliding-window:window_frames=7"}
    page.get_by_role("button", name="discontinuity").click()
    assert page.locator(".fkv-board th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="rule", exact=True).click()
    assert page.locator(".fkv-board th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert rules(page) == ["longlive:window_frames=7", "sliding-window:window_frames=7"]
    page.get_by_role("button", name="discontinuity").click()
    order = rules(page)
    for value in (1, 99):  # first no rule is left
        slide(page, "frames", value)
    assert page.locator(".fkv-board th[aria-sort]").get_attribute("aria-sort") == "descending" and rules(page) == order


def test_a_rule_opens_its_videos_its_page_table_and_the_live_tab(board):
    page = board()
    page.get_by_role("button", name="forcing-kv", exact=True).click()
    opened = page.locator(".fkv-opened")
    expect(opened.locator("h3")).to_have_text("forcing-kv")
    page.wait_for_function("[...document.querySelectorAll('.fkv-films video')].every((film) => film.readyState >= 2)")
    assert opened.locator("video").count() == 2
    opened.locator("#fkv-board-wipe").fill("20")
    split = "getComputedStyle(document.querySelectorAll('.fkv-films video')[1]).clipPath"
    assert page.evaluate(split).endswith("20%)")
    assert page.evaluate(
        "(() => { const sheet = document.querySelector('.fkv-board-xray');"
        "return sheet.getContext('2d').getImageData(0, 0, sheet.width, sheet.height).data.some(Boolean); })()"
    )
    expect(opened.locator("dl")).to_contain_text("equal to zju-jiyicheng/Forcing-KV")
    opened.locator(".fkv-live").click()
    page.wait_for_url("**a=forcing-kv**")
    assert "a=forcing-kv" in page.url and "b=full" in page.url


def test_a_board_is_saved_as_three_files(board):
    page = board()
    for ending in ("PNG", "CSV", "JSON"):
        with page.expect_download() as download:
            page.locator(".fkv-board-files").get_by_role("link", name=ending).click()
        assert download.value.suggested_filename == f"board-tiny-small.{ending.lower()}"
