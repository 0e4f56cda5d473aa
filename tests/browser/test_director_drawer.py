"""The drawer Director in a real browser: scenes to edit and to play, and what is wrong in a sentence."""

from __future__ import annotations

import re

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

BAR = ".fkv-director-bar"


def opened(visit, **options):
    tab = visit(**options)
    tab.page.locator("#fkv-director button.label-wrap").click()
    return tab, tab.page.locator("#fkv-director")


def test_agreed_scenes_can_be_edited_and_become_the_storyboard(visit):
    tab, drawer = opened(visit, query="?length=8")
    expect(drawer.get_by_label("Idea")).to_have_value("a day by the sea")
    assert "no language model" in drawer.inner_text()
    drawer.get_by_label("Idea").fill("a cyan heart by the sea")
    drawer.get_by_role("button", name="Ask the director").click()
    expect(drawer.locator(BAR).first).to_have_text(
        re.compile(
            r"^Agreed \(the grammar .+ calls, \d+ silent turns, [\d,]+ tokens\. Plain debate would have taken [\d,]+"
        )
    )
    agreed = drawer.get_by_label("Agreed scenes")
    scenes = agreed.input_value().split(" |\n")
    assert len(scenes) == 4 and all("cyan heart" in scene and scene.endswith("[6]") for scene in scenes)
    kinds = drawer.locator("li").evaluate_all("(lines) => lines.map((line) => line.dataset.kind)")
    assert kinds.count("answer") >= 4 and kinds[-1] == "verdict" and "tokens" in drawer.locator("li").first.inner_text()
    agreed.fill("a green box swinging in the city by day [2] | " + scenes[1])
    drawer.get_by_role("button", name="Use this").click()
    expect(drawer.locator(BAR).last).to_have_text("The scenes are the storyboard of the next run. Press Go live.")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length > 2")
    prompts = [tab.stage(f"player.rounds[{chunk}].record.prompt") for chunk in (0, 2)]
    assert prompts == ["a green box swinging in the city by day", scenes[1].removesuffix(" [6]")]


def test_scenes_play_as_they_come_while_a_stream_runs(visit):
    tab, drawer = opened(visit, query="?length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length > 0")
    drawer.get_by_label("Play as it comes").check()
    drawer.get_by_label("Idea").fill("a pink triangle in the desert")
    drawer.get_by_role("button", name="Ask the director").click()
    expect(drawer.locator(BAR).last).to_have_text(re.compile(r"^4 scenes play from chunk \d+ on\.$"))
    tab.until("window.fkvStudio.player.rounds.some((round) => round.record?.prompt.includes('pink triangle'))")
    assert tab.stage("state") == "live"
    tab.press("Stop")


def test_what_cannot_be_used_is_said_in_the_drawer(visit):
    _, drawer = opened(visit)
    drawer.get_by_role("button", name="Use this").click()
    expect(drawer.locator(BAR).last).to_have_text(re.compile("The agreed scenes|Ask the director first"))
    drawer.get_by_label("Idea").fill(" ")
    drawer.get_by_role("button", name="Ask the director").click()
    expect(drawer.locator(BAR).first).to_have_text(re.compile("^The idea is empty; say in a line"))
