"""What a visitor does, in a real browser. Waits are on what the stage reports, never on time."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import gradio_client
import gradio_client.exceptions
import pytest

from fkv.models import registry
from fkv.studio.tabs.policy_field import split_info

expect = pytest.importorskip("playwright.sync_api").expect


def test_side_by_side_paints_both_streams_in_step(visit):
    tab = visit(query="?length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.painted.A > 13 && window.fkvStudio.painted.B > 13")  # well into the second chunk
    a, b = tab.stage("painted.A"), tab.page.evaluate("[window.fkvStudio.painted.A, window.fkvStudio.painted.B]")
    assert b[0] == b[1] >= a
    assert "forcing-kv and full side by side" in tab.status
    readings = tab.page.locator(".fkv-read b").all_inner_texts()
    assert all(float(each) > 0 for each in readings), readings
    tab.press("Stop")
    tab.until("window.fkvStudio.state === 'done'")
    assert tab.status.startswith("Stopped after")


def test_prompt_change_leaves_a_mark_and_streams_on(visit):
    tab = visit(query="?view=A&length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.get_by_label("Prompt", exact=True).fill("a cyan star drifting over the sea at night")
    tab.page.get_by_label("Prompt", exact=True).press("Enter")
    tab.until("window.fkvStudio.marks.length === 2")
    mark = tab.stage("marks[1]")
    assert mark["text"] == "a cyan star drifting over the sea at night" and mark["chunk"] >= 1
    assert "cyan star" in tab.page.locator(".fkv-marks").text_content()
    tab.until(f"window.fkvStudio.player.rounds.length > {mark['chunk'] + 1}")
    assert tab.stage("state") == "live"


def test_space_pauses_and_resumes(visit):
    tab = visit(query="?view=A&length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.painted.A > 0")
    tab.page.locator(".fkv-timeline").focus()
    tab.page.keyboard.press(" ")
    tab.until("window.fkvStudio.state === 'paused'")
    chunks = tab.stage("player.rounds.length")
    tab.page.get_by_role("button", name="Resume", exact=True).wait_for()
    tab.page.keyboard.press(" ")
    tab.until(f"window.fkvStudio.player.rounds.length > {chunks + 1}")


def test_clicking_the_timeline_scrubs_back_and_the_end_key_returns(visit):
    tab = visit(query="?view=A&length=3")
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'done' && window.fkvStudio.player.at === 2")
    tab.still()
    painted = tab.stage("painted.A")
    tab.page.locator(".fkv-timeline").click(position={"x": 3, "y": 35})
    assert tab.stage("player.at") == 0 and not tab.stage("player.following")
    tab.until(f"window.fkvStudio.painted.A > {painted}")
    tab.page.keyboard.press("End")
    assert tab.stage("player.at") == 2


def gone(url: str, seconds: float = 60) -> bool:
    """Whether an address answers 404, now or soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError as error:
            return error.code == 404
        time.sleep(0.05)
    return False


def test_closing_the_tab_frees_its_chunks_and_the_machine(visit, studio):
    first, second = visit(query="?view=A&length=0"), visit(query="?view=A&length=1")
    first.press("Go live")
    first.until("window.fkvStudio.painted.A > 0")
    chunk = f"{studio}/stage/{first.stage('player.key')}/0"
    assert urllib.request.urlopen(chunk).status == 200
    shown = second.stage("player.key")
    second.page.get_by_role("button", name="Go live", exact=True).click()
    second.until("window.fkvStudio.state === 'queued'")
    assert second.stage("player.key") == shown, "what was shown stays while they wait"
    assert "Place 1 in the queue" in second.status
    first.page.close()
    second.until("window.fkvStudio.state === 'done' && window.fkvStudio.painted.A > 0")
    assert gone(chunk)


def test_bad_input_is_answered_by_a_sentence_and_unknown_words_by_a_hint(visit):
    tab = visit(query="?a=nonsense&length=3")
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'error'")
    assert "no policy 'nonsense'" in tab.status
    tab.page.get_by_label("Prompt", exact=True).fill("a dragon over the sea")
    tab.page.locator(".fkv-hint", has_text="dragon").wait_for()


def test_address_restores_the_form(visit):
    tab = visit(query="?prompt=a+pink+box&seed=7&length=3&view=B&b=sliding-window")
    expect(tab.page.get_by_label("Prompt", exact=True)).to_have_value("a pink box")
    expect(tab.page.get_by_label("Seed", exact=True)).to_have_value("7")
    expect(tab.page.get_by_role("radio", name="sliding-window")).to_be_checked()


def test_the_threshold_says_how_it_splits_the_heads_whoever_has_moved_it(visit):
    model = registry.load("tiny")
    tab = visit(query="?prompt=a+pink+box&threshold=0.9")
    tab.page.get_by_role("button", name="Policies and parameters").click()
    said = tab.page.locator("#fkv-advanced")
    expect(said).to_contain_text(split_info(model, 0.9))
    tab.page.get_by_label("Threshold of static heads").first.fill("5")
    expect(said).to_contain_text(split_info(model, 1.0))
    slider = tab.page.locator("#fkv-advanced input[type=range]").first
    slider.press("Home")
    expect(said).to_contain_text(split_info(model, 0.0))
    slider.press("End")
    expect(said).to_contain_text(split_info(model, 1.0))


def show(page, name):
    """Open a tab, from the menu of those that a narrow page has no room for if it is there."""
    if not page.get_by_role("tab", name=name).is_visible():
        page.locator(".overflow-menu > button").click()
    page.locator("[role=tab]:visible, .overflow-dropdown button:visible", has_text=name).click()


def test_nothing_scrolls_sideways(visit):
    tab = visit(width=390)
    tab.until("window.fkvStudio.painted.A > 0")
    for width in (390, 3840):
        tab.page.set_viewport_size({"width": width, "height": 900})
        show(tab.page, "Live")
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        show(tab.page, "How it works")
        tab.page.locator(".fkv-how svg").last.wait_for()
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_keys_the_line_of_a_talk_and_its_way_out_are_seen_on_other_tabs(visit):
    page = visit().page
    page.get_by_role("tab", name="Heads", exact=True).click()
    page.locator(".fkv-heads").wait_for()
    page.keyboard.press("d")
    colour = "(dialog) => getComputedStyle(dialog).backgroundColor"
    for key, dialog in (("?", ".fkv-help"), ("p", ".fkv-ask")):
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        assert page.locator(dialog).evaluate(colour) == "rgb(22, 26, 31)"
        page.keyboard.press("Escape")
        expect(page.locator(dialog)).to_be_hidden()
    page.get_by_role("tab", name="Explore", exact=True).click()
    expect(page.get_by_role("button", name="Size, policy and storyboard")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("t")
    page.get_by_role("button", name="Leave talk mode").click()
    expect(page.locator(".fkv-leave")).to_be_hidden()
    page.get_by_role("tab", name="Board", exact=True).click()
    table = page.get_by_role("region", name="Cache rules", exact=True)
    table.locator("tbody tr").first.wait_for()
    press = "(at) => at.dispatchEvent(new KeyboardEvent('keydown', { key: 'End', bubbles: true, cancelable: true }))"
    assert table.evaluate(press), "it scrolls"
    assert not page.locator("body").evaluate(press)


def test_margins_are_equal_in_every_tab_and_focus_is_seen(visit):
    tab = visit(width=1280)
    tab.until("window.fkvStudio.painted.A > 0")
    sides = """(name) => {
      const { left, right } = document.querySelector(name).getBoundingClientRect();
      const page = document.documentElement.getBoundingClientRect();  // without the scroll bar's gutters
      return [left - page.left, page.right - right].map(Math.round);
    }"""
    left, right = tab.page.evaluate(sides, "#fkv-header")
    assert abs(left - right) <= 1
    contents = {
        "Live": "#fkv-stage .fkv",
        "Explore": ".fkv-explore",
        "Heads": ".fkv-heads",
        "Atlas": "#fkv-role-atlas",
        "Compare": "#fkv-compare",
        "Board": ".fkv-board",
        "How it works": ".fkv-how:not(#fkv-about *)",
    }
    for name, content in contents.items():
        tab.page.get_by_role("tab", name=name, exact=True).click()
        tab.page.locator(content).wait_for()
        assert tab.page.evaluate(sides, content) == [left, right], name
    tab.page.get_by_role("tab", name="Live").click()
    outline = "() => parseFloat(getComputedStyle(document.activeElement.closest('label')).outlineWidth)"
    tab.page.locator("#fkv-choices input[type=radio]:checked").focus()
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.evaluate(outline) >= 2


def test_clip_endpoint_returns_a_video_and_its_figures(studio):
    client = gradio_client.Client(studio, verbose=False)
    video, figures = client.predict(
        prompt="a red ball bouncing", policy="sliding-window", chunks=1, seed=3, api_name="/generate_clip"
    )
    assert Path(video).stat().st_size > 500 and Path(video).suffix == ".mp4"
    assert (figures["policy"], figures["seed"], len(figures["chunks"])) == ("sliding-window", 3, 1)
    with pytest.raises(gradio_client.exceptions.AppError, match="There is no policy 'nonsense'"):
        client.predict(prompt="a red ball", policy="nonsense", api_name="/generate_clip")
