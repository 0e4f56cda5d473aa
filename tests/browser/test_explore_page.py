"""The Explore tab in a real browser: a search grows a tree, futures are chosen by hand, one of them goes on live."""

from __future__ import annotations

import re

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

SAY = ".fkv-explore-say"
PAINTED = "(nodes) => nodes.every((node) => node.querySelector('canvas').width > 100)"


def opened(visit, chunks, **options):
    tab = visit(**options)
    tab.page.get_by_role("tab", name="Explore").click()
    form = tab.page.locator("#fkv-explore-form")
    form.locator("button.label-wrap").click()
    form.get_by_label("Chunks", exact=True).fill(str(chunks))
    form.get_by_label("Futures side by side").fill("4")
    return tab, form


def test_a_visitor_explores_compares_two_futures_and_goes_on_live_with_one(visit):
    tab, form = opened(visit, 3)
    form.get_by_label("What changes at which chunk").fill("2: a blue star drifting over the sea at night")
    form.get_by_role("button", name="Explore").click()
    page = tab.page
    expect(page.locator(SAY)).to_have_text(re.compile(r"^Finished: 12 chunks, \d+ of 200 passes; the best future"))
    nodes = page.locator(".fkv-node")
    expect(nodes).to_have_count(12)
    page.wait_for_function(f"({PAINTED})([...document.querySelectorAll('.fkv-node')])")
    names = nodes.evaluate_all("(nodes) => nodes.map((node) => node.getAttribute('aria-label'))")
    assert all(
        re.match(r"Future \d+, chunk [123]: .+; reward \d\.\d\d.*; looks like group [A-Z]; holds", name)
        for name in names
    )
    assert sum("on the chosen path" in name for name in names) == 3
    assert any("abandoned: not among the best of its depth" in name for name in names)
    assert page.locator(".fkv-tree path").count() == 8
    nodes.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").split(":")[0].endswith("chunk 2")
    nodes.nth(11).click()
    expect(page.locator(".fkv-future-facts dd").first).to_have_text(re.compile("^3, move: "))
    page.get_by_role("button", name="Compare with another").click()
    nodes.nth(8).click()
    expect(page.locator(".fkv-future-name")).to_have_text("Future 12, and on the right future 9.")
    expect(page.locator(".fkv-future-facts dd").nth(1)).to_have_text("9")
    expect(page.get_by_label("Wipe between the two")).to_be_visible()
    page.wait_for_function("document.querySelector('.fkv-two').width > 100")
    page.get_by_role("button", name="Go on from here, live").click()
    tab.until("window.fkvStudio.player.rounds.length > 2 && !window.fkvStudio.player.loop")
    assert page.get_by_role("tab", name="Live").get_attribute("aria-selected") == "true"
    address = page.evaluate("window.location.search")
    assert re.search(r"path=\d+%2C\d+%2C\d+", address) and "blue+star" in address and "view=A" in address
    tab.press("Stop")


def test_futures_are_chosen_by_hand_in_talk_mode_too(visit):
    tab, form = opened(visit, 6)
    page = tab.page
    form.get_by_role("button", name="Choose by hand").click()
    options = page.locator(".fkv-options button")
    expect(options).to_have_count(4)
    expect(page.locator(SAY)).to_have_text(re.compile("^Press 1 to 4 to go on"))
    expect(page.locator(".fkv-future-name")).to_have_text("Choose a node of the tree to play its future.")
    expect(page.get_by_role("button", name="Go on from here, live")).to_be_disabled()
    page.wait_for_function("[...document.querySelectorAll('.fkv-options canvas')].every((each) => each.width > 100)")
    page.locator(SAY).click()
    page.keyboard.press("t")
    expect(form).to_be_hidden()
    expect(options.nth(3)).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator(SAY)).to_have_text(re.compile("^(Going on with future 3|Making future)"))
    expect(options).to_have_count(4)
    page.keyboard.press("1")
    expect(page.locator(SAY)).to_have_text(re.compile(r"^Finished: 6 chunks chosen, 24 chunks"))
    page.keyboard.press("t")
    expect(page.locator(".fkv-node")).to_have_count(24)
    assert page.locator(".fkv-node[data-left=yes]").count() == 18


def test_what_cannot_be_explored_is_said_in_the_tab(visit):
    tab, form = opened(visit, 3)
    form.get_by_label("Rewards, joined by +").fill("sharp")
    form.get_by_role("button", name="Explore").click()
    expect(tab.page.locator(SAY)).to_have_text(re.compile(r"^There is no reward 'sharp'; there are continuity"))
