"""The Compare tab in a real browser: a small comparison from start to files, a cancelled one, bad input."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect


@pytest.fixture
def compare(visit):
    """Opens the Compare tab of a new visitor."""

    def open_tab():
        tab = visit()
        tab.page.get_by_role("tab", name="Compare").click()
        tab.page.get_by_label("Prompts, one per line").fill("a red ball bouncing over the sea by day")
        return tab.page

    return open_tab


def drop(page, policy: str) -> None:
    """Take a policy out of the list."""
    page.locator("#fkv-compare .token", has_text=policy).get_by_role("button").click()


def start(page, chunks: int) -> None:
    page.get_by_label("Chunks per stream").fill(str(chunks))
    page.get_by_role("button", name="Compare", exact=True).click()


def start_long(page) -> None:
    """Begin a comparison of 720 chunks, which no machine has done before a test is, and wait for its first."""
    page.get_by_label("Seeds").fill("0, 1, 2, 3")
    start(page, 60)
    page.wait_for_function("document.querySelector('.fkv-progress progress').value >= 1")


def state(page, name: str):
    return page.locator(f'.fkv-progress[data-state="{name}"]')


def finished(page, text: str) -> None:
    """Wait for the end of a comparison; states on the way there may pass unseen."""
    state(page, "done").filter(has_text=text).wait_for()


def cells(page, policy: str) -> list[str]:
    return (
        page.locator(".fkv-table")
        .first.locator("tbody tr", has=page.get_by_role("rowheader", name=policy))
        .locator("td")
        .all_inner_texts()
    )


def test_two_policies_two_chunks_from_start_to_files(compare):
    page = compare()
    drop(page, "sliding-window")
    expect(page.locator("#fkv-pareto")).to_be_hidden()  # nothing to show yet
    start(page, 2)
    finished(page, "Finished: 2 streams of 2 chunks")
    expect(
        page.get_by_role("button", name="Download JSON")
    ).to_be_enabled()  # the last of what the end puts on the page
    assert page.locator(".fkv-progress progress").get_attribute("max") == "4"
    full, hybrid = cells(page, "full"), cells(page, "forcing-kv")
    assert (
        full[2] == "1.00 ×"
        and full[4] == "–"
        and all(float(each) > 0 for each in (*full[:2], *hybrid[:2], *hybrid[3:6]))
    )
    assert full[6].endswith("%") and float(hybrid[3]) < float(full[3])
    pictures = page.locator("#fkv-films img")
    assert pictures.evaluate_all("all => all.map(each => [each.alt, each.naturalWidth])") == [
        [f"{policy}, chunk {number}", 160] for policy in ("full", "forcing-kv") for number in (1, 2)
    ]
    expect(page.get_by_role("figure", name="Speed against quality of every policy")).to_be_visible()
    labels = page.locator("#fkv-pareto .textpoint")
    expect(labels).to_have_count(2)
    assert sorted(labels.all_text_contents()) == ["forcing-kv", "full"]
    found = {}
    for label, ending in (("CSV", ".csv"), ("chart", ".png"), ("pictures", "-pictures.png"), ("JSON", ".json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {label}").click()
        assert download.value.suggested_filename == f"forcing-kv-comparison{ending}"
        found[label] = download.value.path().read_bytes()
    assert found["chart"].startswith(b"\x89PNG") and found["CSV"].decode().splitlines()[1].startswith("full,")
    blue, _, red = cv2.imdecode(np.frombuffer(found["pictures"], np.uint8), cv2.IMREAD_COLOR).T.astype(int)
    assert np.mean(red - blue > 100) > 0.002  # the red ball of the prompt
    told = json.loads(found["JSON"])
    assert f"{told['policies']['full']['fps_denoise']:.1f}" == full[0] and len(told["streams"]) == 2
    order = page.locator(".fkv-table").first.locator("tbody th")
    page.get_by_role("button", name="peak KV, MB").first.click()
    assert order.all_inner_texts()[0].startswith("full")
    page.get_by_role("button", name="peak KV, MB").first.click()
    assert order.all_inner_texts()[0].startswith("forcing-kv")
    assert page.locator("#fkv-pareto .xerror").count() == 2  # the spread over chunks
    start(page, 2)
    expect(page.locator(".fkv-earlier summary")).to_have_text(
        [re.compile("^full, forcing-kv · "), re.compile(r"^Recorded: \d\d policies")]
    )


def test_cancel_ends_it_between_chunks_and_the_next_one_starts(compare):
    page = compare()
    page.set_viewport_size({"width": 390, "height": 900})
    start_long(page)
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    finished(page, "Stopped after")
    assert "of 720 chunks" in page.locator(".fkv-progress").inner_text()
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    edges = "(tables) => tables.map((table) => table.getBoundingClientRect().right)"
    assert all(edge <= 390 for edge in page.locator(".fkv-table, .fkv-earlier li").evaluate_all(edges))
    page.get_by_label("Seeds").fill("0")
    start(page, 2)
    finished(page, "Finished: 3 streams of 2 chunks")


def test_bad_input_is_answered_by_a_sentence(compare):
    page = compare()
    page.get_by_label("Seeds").fill("0, x")
    start(page, 2)
    state(page, "error").wait_for()
    assert "'x' is not an integer" in page.locator(".fkv-progress").inner_text()


def test_leaving_the_page_frees_the_machine(compare):
    page, other = compare(), compare()
    start_long(page)
    start(other, 2)
    state(other, "queued").wait_for()
    assert "Place 1 in the queue" in other.locator(".fkv-progress").inner_text()
    page.close()
    finished(other, "Finished: 3 streams of 2 chunks")
