"""The Heads and Atlas tabs in a real browser, while a stream runs and without one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from fkv import roles as role_files
from fkv.models import tiny

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

ROLES = role_files.load(tiny.FOLDER / "roles.json")
LAYER, HEAD = (int(places[-1]) for places in ROLES.is_static().nonzero())
"""A static head of the shipped model."""
WATCHED = "window.fkvStudio.player.rounds.filter((round) => round.record?.heads)"
PICTURES = """async (name) => {
  const button = document.querySelector(`.fkv-cell[aria-label^="${name},"]`);
  const panel = document.querySelector(".fkv-detail");
  const head = name.match(/\\d+/g).join(".");
  const pictures = () => ["kinds", "frames"].map((each) => document.querySelector(`.fkv-${each}`).toDataURL()).join();
  const before = pictures();
  let count = 0;
  button.click();
  for (; panel.dataset.head !== head || pictures() === before; count++) await new Promise(requestAnimationFrame);
  return count;
}"""
"""After how many pictures of the screen a click on a head has changed its panel."""


def cell(tab, layer: int, head: int):
    return tab.page.locator(f'.fkv-cell[aria-label^="layer {layer}, head {head},"]')


def open_tab(tab, name: str) -> None:
    tab.page.get_by_role("tab", name=name).click()
    if name == "Heads":
        cell(tab, 0, 0).wait_for()  # made by the script that makes everything else there work


def watching(visit, chunks: int, view: str = "A"):
    """An endless run started from the Heads tab, so many chunks of which have come with their attention."""
    tab = visit(query=f"?view={view}&length=0")
    open_tab(tab, "Heads")
    tab.page.locator(".fkv-heads-go").click()
    tab.until(f"{WATCHED}.length >= {chunks}")
    return tab


def test_before_any_run_the_profile_shows_where_a_head_looks(visit):
    tab = visit()
    open_tab(tab, "Heads")
    cell(tab, LAYER, HEAD).click()
    mass = np.array(ROLES.provenance["attention"]["mass"][LAYER][HEAD])
    shares = [mass[:, ages].sum(-1).mean() for ages in (slice(0, 1), slice(17, 18), slice(1, 17), slice(18, 21))]
    names = "sink", "anchor frame", "kept", "current chunk"
    words = ", ".join(
        f"{name} {100 * share:.{1 if share < 0.0995 else 0}f} %" for name, share in zip(names, shares, strict=True)
    )
    playwright.expect(tab.page.locator(".fkv-kinds")).to_have_attribute(
        "aria-label", f"Attention by kind of page: {words}"
    )
    assert tab.page.locator(".fkv-readout").inner_text().startswith("Query frame 20 looks most at key frames 2")
    assert f"over {len(ROLES.provenance['prompts'])} prompts" in tab.page.locator(".fkv-heads-say").inner_text()


def test_a_click_on_a_head_changes_its_panel_while_a_stream_runs(visit):
    tab = watching(visit, chunks=2)
    assert (
        max(
            tab.page.evaluate(PICTURES, name)
            for name in ("layer 4, head 1", "layer 2, head 5", f"layer {LAYER}, head {HEAD}")
        )
        <= 2
    )
    title = f"Layer {LAYER}, head {HEAD} · static · profile score {ROLES.scores[LAYER, HEAD]:.2f}"
    assert tab.page.locator(".fkv-detail h3").inner_text().startswith(title)
    focus = f"focus.layer === {LAYER} && focus.head === {HEAD}"
    tab.until(f"{WATCHED}.some(({{ record: {{ heads: {{ focus }} }} }}) => {focus})")
    tab.page.locator(".fkv-look").click(position={"x": 3, "y": 3})
    tab.until(f"{WATCHED}.some((round) => round.record.heads.focus.row === 0 && round.record.heads.focus.col === 0)")


def test_a_flipped_role_shows_in_a_later_chunk_and_on_the_timeline_and_can_be_reset(visit):
    tab = watching(visit, chunks=1)
    cell(tab, LAYER, HEAD).click()
    tab.press("Flip to dynamic")
    tab.until(f"window.fkvStudio.marks.some((mark) => mark.text.includes('heads = {LAYER}.{HEAD} dynamic'))")
    tab.until(f"!{WATCHED}.at(-1).record.heads.static[{LAYER}].includes({HEAD})")
    tab.page.locator(f'.fkv-cell[aria-label^="layer {LAYER}, head {HEAD}, dynamic"]').wait_for()
    tab.press("Reset to released roles")
    tab.until(f"{WATCHED}.at(-1).record.heads.static[{LAYER}].includes({HEAD})")


def test_an_applied_threshold_is_a_line_of_the_storyboard_in_the_address(visit):
    tab = watching(visit, chunks=1)
    tab.page.locator(".fkv-threshold input").fill("0.5")
    tab.press("Apply threshold")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text === 'threshold = 0.5')")
    tab.until("new URLSearchParams(location.search).get('story')?.endsWith(': threshold = 0.5')")
    static = [list(heads) for heads in role_files.from_scores(ROLES.scores, 0.5).static]
    assert tab.page.evaluate(f"{WATCHED}.at(-1).record.heads.static") == static


def test_in_the_first_layer_which_is_not_parted_no_role_is_flipped(visit):
    tab = watching(visit, chunks=1)
    flip = tab.page.locator('[data-do="flip"]')
    for layer, ready in ((1, True), (0, False)):
        cell(tab, layer, 0).click()
        playwright.expect(flip).to_be_enabled() if ready else playwright.expect(flip).to_be_disabled()
        assert ("role not used in this layer" in tab.page.locator(".fkv-detail h3").inner_text()) != ready


def test_a_silenced_head_looks_at_the_current_chunk_alone_and_the_timeline_says_so(visit):
    tab = watching(visit, chunks=2)
    cell(tab, 3, 2).click()
    tab.press("Silence")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text === 'A = forcing-kv without 3.2')")
    record = f"{WATCHED}.at(-1).record"
    tab.until(f"{record}.streams.A.policy === 'forcing-kv without 3.2'")
    heads = tab.page.evaluate(f"{record}.heads")
    kinds = heads["kinds"][heads["groups"][3][2]]
    attended = {kind for kind, mass in zip(kinds, heads["mass"][3][2][0], strict=True) if mass >= 0}
    assert attended == {"current"}
    tab.press("Unsilence")
    playwright.expect(tab.page.get_by_role("button", name="Unsilenced from the next run")).to_be_disabled()
    open_tab(tab, "Live")
    tab.page.get_by_role("button", name="Policies and parameters").click()
    playwright.expect(tab.page.get_by_label("Policy of A")).to_have_value("forcing-kv")


def test_what_is_changed_here_is_what_the_form_says(visit):
    tab = watching(visit, chunks=1)
    cell(tab, 3, 2).click()
    tab.press("Silence")
    tab.page.locator(".fkv-threshold input").fill("0.5")
    tab.press("Apply threshold")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text.includes('threshold = 0.5'))")
    open_tab(tab, "Live")
    tab.page.get_by_role("button", name="Policies and parameters").click()
    playwright.expect(tab.page.get_by_label("Policy of A")).to_have_value("forcing-kv without 3.2")
    playwright.expect(tab.page.get_by_label("Threshold of static heads").first).to_have_value("0.5")
    retention = tab.page.get_by_label("Retention of A").first
    retention.fill("0.5")
    retention.press("Enter")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text === 'A = forcing-kv:retention=0.5 without 3.2')")
    tab.press("Start over")
    tab.until(f"{WATCHED}.length === 0")
    open_tab(tab, "Heads")
    tab.until(f"{WATCHED}.length > 0")
    playwright.expect(tab.page.locator(".fkv-threshold output")).to_have_text("0.50")
    static = int(role_files.from_scores(ROLES.scores, 0.5).is_static().sum())
    playwright.expect(tab.page.locator('[data-count="static"]')).to_have_text(str(static))


def test_the_threshold_relabels_at_once_and_says_what_changes(visit, tmp_path):
    tab = visit()
    open_tab(tab, "Heads")
    roles = tiny.load().roles
    tab.page.locator(".fkv-threshold input").fill("0.5")
    now = role_files.from_scores(roles.scores, 0.5)
    changed = int((now.is_static() != roles.is_static()).sum())
    assert f"{changed} of 64 heads change: {changed} to static." in tab.page.locator(".fkv-consequence").inner_text()
    assert tab.page.locator('.fkv-cell[data-changed="true"]').count() == changed
    assert int(tab.page.locator('[data-count="static"]').inner_text()) == now.is_static().sum()
    with tab.page.expect_download() as download:
        tab.press("Download roles (JSON)")
    download.value.save_as(tmp_path / "roles.json")
    assert role_files.load(tmp_path / "roles.json") == now
    assert json.loads((tmp_path / "roles.json").read_text())["threshold"] == 0.5
    assert json.loads((tmp_path / "roles.json").read_text())["scores"] == role_files.to_json(roles)["scores"]
    tab.press("Reset to released roles")
    assert tab.page.locator('.fkv-cell[data-changed="true"]').count() == 0
    file = tab.page.get_by_label("File of roles")
    file.set_input_files(tmp_path / "roles.json")
    expect(tab.page.locator('.fkv-cell[data-changed="true"]')).to_have_count(changed)
    expect(tab.page.locator(".fkv-threshold output")).to_have_text("0.50")
    (tmp_path / "other.json").write_text('{"static_heads": [[0]]}')
    file.set_input_files(tmp_path / "other.json")
    expect(tab.page.locator(".fkv-consequence")).to_have_text("other.json holds no roles of 8 layers of 8 heads.")


def test_the_grid_is_walked_by_arrow_keys(visit):
    tab = visit()
    open_tab(tab, "Heads")
    cell(tab, 3, 3).click()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        tab.page.keyboard.press(key)
    playwright.expect(cell(tab, 5, 2)).to_be_focused()
    assert (
        tab.page.locator('.fkv-cell[tabindex="0"]').count() == 1
        and cell(tab, 5, 2).get_attribute("aria-pressed") == "false"
    )
    tab.page.keyboard.press("Enter")
    assert (
        cell(tab, 5, 2).get_attribute("aria-pressed") == "true"
        and "Layer 5, head 2" in tab.page.locator(".fkv-detail h3").inner_text()
    )


def test_who_never_opens_heads_is_not_watched_and_who_leaves_no_longer(visit):
    tab = visit(query="?view=A&length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 3")
    assert tab.page.evaluate(f"{WATCHED}.length") == 0
    open_tab(tab, "Heads")
    tab.until(f"{WATCHED}.length >= 1")
    open_tab(tab, "Live")
    tab.until("window.fkvStudio.player.rounds.at(-1).record?.heads === undefined")


def test_the_atlas_shows_figures_and_hands_out_files(visit):
    tab = visit()
    assert tab.page.locator(".js-plotly-plot").count() == 0
    waiting = """() => {
      const empty = Object.assign(document.createElement("div"), { className: "fkv-atlas" });
      document.body.append(empty);
      const text = getComputedStyle(empty, "::before").content;
      empty.remove();
      return text;
    }"""
    assert "Drawing the figure" in tab.page.evaluate(waiting)  # until there is one
    open_tab(tab, "Atlas")
    tab.until("document.querySelectorAll('.fkv-atlas .js-plotly-plot').length === 2")
    titles = tab.page.locator(".fkv-atlas .gtitle")
    playwright.expect(titles).to_have_text(["Role atlas: which heads are static, model by model", "Head roles of tiny"])
    tab.page.locator(".fkv-downloads select:visible").select_option("LongLive")
    playwright.expect(titles.nth(1)).to_have_text("Head roles of LongLive")
    playwright.expect(tab.page.get_by_role("figure", name="Roles and scores of all heads of LongLive")).to_be_visible()
    links = [link.get_attribute("href") for link in tab.page.locator(".fkv-downloads a").all()]
    assert len(links) == 6
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "csv": b"model,layer,static heads,static share,which heads"}
    for link, start in zip(links[:3], starts.values(), strict=True):
        answer = tab.page.request.get(link)
        assert answer.ok and answer.body().startswith(start)
    assert tab.page.request.get(links[5]).text().splitlines()[0] == "layer,head,role,score"
    assert tab.page.request.get(links[0].replace("role-atlas", "secret")).status == 404


@pytest.mark.parametrize("name", ["Heads", "Atlas"])
def test_nothing_scrolls_sideways_on_a_phone(visit, name):
    tab = visit(width=390)
    open_tab(tab, name)
    tab.page.locator(".fkv-grid" if name == "Heads" else ".fkv-atlas .gtitle").first.wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_all_heads_show_as_maps_and_one_head_in_both_streams_and_as_files(visit, tmp_path):
    tab = watching(visit, chunks=1, view="AB")
    tab.page.locator(".fkv-cells label", has_text="Maps").click()
    small = tab.page.locator(".fkv-cell canvas")
    assert small.count() == ROLES.scores.size
    drawn = "(canvas) => canvas.checkVisibility() && canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3] > 0"
    assert small.nth(20).evaluate(drawn)
    tab.page.locator('[data-of="stream"] label', has_text="both").click()
    tab.until("window.fkvStudio.player.rounds.at(-1).record.beside")
    playwright.expect(tab.page.locator(".fkv-frames-beside")).to_have_attribute(
        "aria-label", re.compile("^The same head in stream B: full; ")
    )
    cell(tab, LAYER, HEAD).click()
    tab.press("Flip to dynamic")
    tab.page.locator('.fkv-cell[data-mark="flipped"]').wait_for()
    starts = {"png": b"\x89PNG", "svg": b"<svg", "csv": b"query_frame,key_frame,share_of_attention\n"}
    for kind, start in starts.items():
        with tab.page.expect_download() as download:
            tab.page.locator(f'[data-save="{kind}"]').click()
        download.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(start)
