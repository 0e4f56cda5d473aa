"""The Live tab in a real browser: first visit, views, changes while a stream runs, talk mode, recording."""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import parse_qs, urlencode, urlsplit

import av
import cv2
import pytest

expect = pytest.importorskip("playwright.sync_api").expect

PIXELS = """([name, x, y]) => [...document.querySelector(name).getContext("2d").getImageData(x, y, 1, 1).data]"""
DRAWN = """(name) => {
  const over = document.querySelector(name);
  return over.checkVisibility() && over.getContext("2d").getImageData(0, 0, over.width, over.height).data.some(Boolean);
}"""
SCREEN, OVER, WIPE_OVER = (
    '.fkv-screen[data-stream="{}"] canvas',
    '.fkv-screen[data-stream="{}"] .fkv-over',
    '.fkv-both [data-stream="{}"]',
)


def hashes(tab, chunk: int) -> list[str]:
    """The frame hashes of all streams up to a chunk."""
    return [own["hash"] for own in tab.stage(f"player.rounds[{chunk}].record.streams").values()]


def test_first_visit_moves_without_a_click_and_says_that_it_is_recorded(visit):
    tab = visit()
    tab.until("window.fkvStudio.waited !== null && window.fkvStudio.player.at > 0")
    assert tab.stage("state") == "recorded"
    expect(tab.page.locator(".fkv-source")).to_have_text(re.compile(r"recorded on .+, \d{4}-\d\d-\d\d"))
    assert tab.page.locator("#fkv-stage").inner_text().count("recorded on") == 1
    expect(tab.page.locator("footer .divider")).to_be_hidden()
    assert tab.page.locator(".fkv-recorded").all_inner_texts() == ["recorded, not live"] * 2
    expect(tab.page.locator("#fkv-examples button")).to_have_count(3)
    expect(tab.page.locator("#fkv-about svg")).to_be_visible()
    last = tab.stage("player.wanted") - 1
    tab.page.locator(".fkv-timeline").focus()
    tab.until(f"window.fkvStudio.player.at === {last}")
    tab.until("window.fkvStudio.player.at === 0")  # over and over
    tab.page.keyboard.press(" ")
    assert tab.stage("player.held")
    tab.page.get_by_role("button", name="Play the replay").click()
    assert not tab.stage("player.held")
    tab.press("Go live")
    tab.until("window.fkvStudio.painted.A > 0")
    expect(tab.page.locator(".fkv-source")).to_contain_text("live on")
    expect(tab.page.locator(".fkv-recorded").first).to_be_hidden()


def test_reduced_motion_shows_the_recording_still(visit):
    tab = visit(reduced_motion="reduce")
    tab.until("window.fkvStudio.painted.A > 0")
    painted = tab.stage("painted.A")
    play = tab.page.get_by_role("button", name="Play the replay")
    expect(play).to_be_enabled()
    assert tab.stage("painted.A") == painted
    play.click()
    tab.until(f"window.fkvStudio.painted.A > {painted + 3}")


def test_wipe_and_difference_are_made_of_both_pictures(visit):
    tab = visit(reduced_motion="reduce")
    tab.until("window.fkvStudio.painted.A > 0 && window.fkvStudio.painted.B > 0")
    tab.page.keyboard.press("4")
    expect(tab.page.get_by_role("radio", name="Wipe")).to_be_checked()
    divider = tab.page.get_by_role("slider", name="Divider between A and B")
    divider.focus()
    for _ in range(3):
        tab.page.keyboard.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuetext", "65 % A, 35 % B")
    assert tab.stage("player.at") == 0  # the arrows move the divider, not the film
    box = tab.page.locator(".fkv-both .fkv-frame").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    expect(divider).to_have_attribute("aria-valuetext", "25 % A, 75 % B")
    read = lambda name: tab.page.evaluate(PIXELS, [name, 80, 50])
    assert read(".fkv-left") == read(SCREEN.format("A")) and read(".fkv-right") == read(SCREEN.format("B"))
    tab.page.keyboard.press("5")
    factor = tab.stage("factor")
    assert tab.page.locator(".fkv-factor").inner_text() == f"|A − B| × {factor}"
    a, b = (read(SCREEN.format(name)) for name in "AB")
    assert read(".fkv-left")[:3] == [min(255, factor * abs(x - y)) for x, y in zip(a[:3], b[:3], strict=True)]
    tab.page.keyboard.press("2")
    assert tab.stage("view") == "A" and not tab.page.locator(SCREEN.format("B")).first.is_visible()


def test_the_cache_is_drawn_on_the_pictures(visit):
    tab = visit(reduced_motion="reduce")
    tab.until(
        "window.fkvStudio.painted.A > 0 && window.fkvStudio.player.rounds.length === window.fkvStudio.player.wanted"
    )
    assert not tab.page.evaluate(DRAWN, OVER.format("A"))
    tab.page.keyboard.press("c")
    assert all(tab.page.evaluate(DRAWN, OVER.format(name)) for name in "AB")
    expect(tab.page.get_by_role("checkbox", name="Attention")).to_be_disabled()  # nobody watches a head


def test_the_cache_is_drawn_on_either_side_of_the_wipe_and_not_on_the_difference(visit):
    tab = visit(reduced_motion="reduce")
    tab.until(
        "window.fkvStudio.painted.A > 0 && window.fkvStudio.player.rounds.length === window.fkvStudio.player.wanted"
    )
    cache, sides = tab.page.get_by_role("checkbox", name="Cache"), [WIPE_OVER.format(name) for name in "AB"]
    for key in "c4":
        tab.page.keyboard.press(key)
    assert all(tab.page.evaluate(DRAWN, side) for side in sides)
    assert (
        len({tab.page.evaluate("(side) => document.querySelector(side).toDataURL()", side) for side in sides}) == 2
    )  # to each its own
    clip = "(name) => getComputedStyle(document.querySelector(name)).clipPath"
    assert [tab.page.evaluate(clip, side) for side in sides] == ["none", tab.page.evaluate(clip, ".fkv-right")]
    tab.page.keyboard.press("5")
    expect(cache).to_be_disabled()
    expect(tab.page.locator(".fkv-layers label", has=cache)).to_have_attribute(
        "title", re.compile("^Not available for the difference")
    )
    assert not any(tab.page.evaluate(DRAWN, side) for side in sides)
    tab.page.keyboard.press("4")
    expect(cache).to_be_enabled()
    expect(cache).to_be_checked()
    assert all(tab.page.evaluate(DRAWN, side) for side in sides)


def test_attention_of_the_head_that_is_watched_is_drawn_on_the_pictures(visit):
    tab = visit(query="?length=0")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.get_by_role("tab", name="Heads").click()
    tab.page.locator(".fkv-cell").nth(20).click()
    tab.until("window.fkvStudio.player.rounds.some((round) => round.record?.heads)")
    tab.page.get_by_role("tab", name="Live").click()
    expect(tab.page.get_by_role("checkbox", name="Attention")).to_be_enabled()
    tab.page.keyboard.press("a")
    expect(tab.page.get_by_role("checkbox", name="Attention")).to_be_checked()
    tab.page.wait_for_function(DRAWN, arg=OVER.format("A"))
    assert not tab.page.evaluate(DRAWN, OVER.format("B"))  # the head is one of A
    tab.until(
        "window.fkvStudio.player.rounds.at(-1).record?.heads"
        " && window.fkvStudio.player.rounds.some((round) => !round.record?.heads)"
    )
    tab.page.keyboard.press("4")
    tab.page.wait_for_function(DRAWN, arg=WIPE_OVER.format("A"))
    assert not tab.page.evaluate(DRAWN, WIPE_OVER.format("B"))


def test_attention_is_drawn_though_the_heads_tab_was_never_opened(visit):
    tab = visit(query="?length=0")
    tab.press("Go live")
    expect(tab.page.get_by_role("checkbox", name="Attention")).to_be_enabled()
    tab.page.keyboard.press("a")
    expect(tab.page.get_by_role("checkbox", name="Attention")).to_be_checked()
    expect(tab.page.get_by_role("tab", name="Live")).to_have_attribute("aria-selected", "true")
    tab.page.wait_for_function(DRAWN, arg=OVER.format("A"))
    tab.page.keyboard.press("a")
    tab.until("!window.fkvStudio.player.rounds.at(-1).record?.heads")  # off again, nobody is asked to look any longer


def test_a_policy_changed_mid_stream_leaves_a_mark_and_is_refused_with_a_sentence(visit):
    tab = visit(query="?length=0&view=A")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.get_by_role("button", name="Policies and parameters").click()
    policy = tab.page.get_by_label("Policy of A")
    policy.fill("sliding-window:window_frames=7")
    policy.press("Enter")
    tab.until("window.fkvStudio.marks.length === 2")
    mark = tab.stage("marks[1]")
    assert mark["text"] == "A = sliding-window:window_frames=7"
    expect(tab.page.locator(".fkv-policy").first).to_have_text("sliding-window:window_frames=7")
    assert re.search("story=.*window_frames", tab.page.evaluate("location.search"))
    policy.fill("per-step")
    policy.press("Enter")
    expect(tab.page.locator(".fkv-status")).to_contain_text("Not applied: a running stream cannot change")


def test_step_makes_exactly_one_chunk(visit):
    tab = visit(query="?length=0&view=A")
    expect(tab.page.get_by_role("button", name="Step", exact=True)).to_be_disabled()
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.locator(".fkv-timeline").focus()
    tab.page.keyboard.press(".")  # pauses first
    tab.until("window.fkvStudio.state === 'paused'")
    chunks = tab.stage("player.wanted")
    for more in (1, 2):
        expect(tab.page.get_by_role("button", name="Step", exact=True)).to_be_enabled()
        tab.page.keyboard.press(".")
        tab.until(f"window.fkvStudio.player.rounds.length === {chunks + more} && window.fkvStudio.state === 'paused'")
    tab.until(f"window.fkvStudio.player.at === {chunks + 1}")
    assert tab.stage("player.wanted") == chunks + 2


def test_fields_of_the_next_run_say_so_while_one_goes_on(visit):
    tab = visit(query="?length=0&view=A")
    seed, hint = tab.page.get_by_label("Seed", exact=True), tab.page.locator(".fkv-hint")
    seed.fill("4")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    expect(hint).to_be_hidden()
    seed.fill("5")
    expect(hint).to_have_text("Stream, chunks and seed apply to the next run. Press Start over.")
    tab.press("Start over")
    expect(hint).to_be_hidden()
    expect(tab.page.locator(".fkv-status")).to_contain_text("seed 5")
    tab.press("Random")
    expect(hint).to_have_text("Stream, chunks and seed apply to the next run. Press Start over.")


STORY = "2: a cyan star drifting over the sea at night\n3: A = sliding-window"


def test_a_link_with_a_storyboard_brings_back_the_same_frames(visit):
    asked = {
        "prompt": "a red ball bouncing over the hills",
        "seed": 3,
        "length": 3,
        "a": "forcing-kv:retention=0.5",
        "story": STORY,
    }
    query, seen = f"?{urlencode(asked)}", []
    for _ in range(2):
        tab = visit(query=query)
        expect(tab.page.locator(".fkv-status")).to_contain_text("the Storyboard has what changes on the way")
        expect(tab.page.locator("#fkv-story .label-wrap")).to_have_attribute("aria-expanded", "true")
        tab.press("Go live")
        tab.until("window.fkvStudio.state === 'done' && window.fkvStudio.marks.length === 3")
        assert [mark["text"] for mark in tab.stage("marks")][1:] == [line[3:] for line in STORY.splitlines()]
        seen.append(hashes(tab, 2))
        query = tab.page.evaluate("location.search")
    assert seen[0] == seen[1] and len(set(seen[0])) == 2
    expect(tab.page.get_by_label("What changes at which chunk")).to_have_value(STORY)


def test_a_storyboard_that_cannot_be_read_names_its_line(visit):
    tab = visit(query="?" + urlencode({"length": 3, "story": "2: a blue star\nlater a red one"}))
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'error'")
    assert tab.status.startswith("Line 2 of the storyboard: 'later a red one' should be written CHUNK:WHAT")


def test_a_key_gives_the_running_stream_the_next_example(visit):
    tab = visit(query="?length=0&view=A")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.keyboard.press("e")
    tab.until("window.fkvStudio.marks.length === 2")
    assert "a cyan star drifting over the sea at night" in tab.stage("marks[1]")["text"]


def test_what_is_paused_stays_paused_and_what_is_resumed_goes_on(visit):
    tab = visit(query="?length=0&view=A")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 2")
    tab.page.locator(".fkv-timeline").focus()
    for _ in range(2):
        tab.page.keyboard.press(" ")  # faster than the stream can follow
    chunks = tab.stage("player.rounds.length")
    tab.until(
        f"window.fkvStudio.player.rounds.length > {chunks + 1}"
        " && !window.fkvStudio.player.held && window.fkvStudio.state === 'live'"
    )
    tab.page.keyboard.press(" ")
    tab.until("window.fkvStudio.state === 'paused'")
    tab.page.keyboard.press("ArrowLeft")
    place = tab.stage("player.position")
    tab.page.wait_for_timeout(500)
    assert tab.stage("player.held") and tab.stage("player.position") == place


def test_talk_mode_by_keyboard_alone(visit):
    tab = visit(query="?length=3&talk=1")
    tab.until("window.fkvStudio.painted.A > 0")
    keys = tab.page.keyboard
    assert not tab.page.locator("#fkv-controls").is_visible()
    assert tab.page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
    for canvas in tab.page.locator('.fkv-charts canvas:not([data-chart="stages"])').all():
        assert canvas.is_visible() and float(canvas.evaluate("(c) => parseFloat(getComputedStyle(c).fontSize)")) >= 18
    keys.press("e")
    expect(tab.page.get_by_role("status").first).to_contain_text("Next: a cyan star drifting over the sea at night.")
    keys.press("g")
    tab.until("window.fkvStudio.state === 'done' && window.fkvStudio.player.at === 2")
    tab.until("window.location.search.includes('cyan')")
    for key, view in (("4", "wipe"), ("5", "difference"), ("2", "A"), ("1", "AB")):
        keys.press(key)
        assert tab.stage("view") == view
    tab.still()
    keys.press("ArrowLeft")
    assert tab.stage("player.at") == 1
    keys.press(" ")
    assert tab.stage("player.held")
    keys.press("?")
    expect(tab.page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    keys.press("Escape")
    keys.press("t")
    expect(tab.page.locator("#fkv-controls")).to_be_visible()


def test_a_prompt_and_a_policy_are_typed_in_a_talk_and_its_figures_hide(visit):
    tab = visit(query="?length=0&talk=1", height=720)
    tab.until("window.fkvStudio.painted.A > 0")
    keys = tab.page.keyboard
    wide = tab.page.locator(".fkv-screen .fkv-frame").first.bounding_box()["width"]
    keys.press("h")
    expect(tab.page.locator(".fkv-xray")).to_be_hidden()
    assert tab.page.locator(".fkv-screen .fkv-frame").first.bounding_box()["width"] > wide
    for line in ("a purple heart circling in the city by day", "b = sliding-window"):
        keys.press("p")
        expect(tab.page.get_by_role("dialog", name="Prompt or policy")).to_be_visible()
        keys.type(line)
        keys.press("Enter")
        tab.until("!window.fkvStudio.player.loop && window.fkvStudio.player.rounds.length > 0")
    tab.until("window.fkvStudio.player.rounds.at(-1)?.record.streams.B.policy.startsWith('sliding-window')")
    assert tab.stage("player.rounds[0].record.prompt") == "a purple heart circling in the city by day"
    keys.press("t")
    tab.page.get_by_role("button", name="Policies and parameters").click()
    expect(tab.page.get_by_label("Policy of B")).to_have_value("sliding-window")


def test_the_status_of_a_talk_is_whole(visit):
    tab = visit(query="?talk=1", height=720)
    tab.until("window.fkvStudio.painted.A > 0")
    for width, height in ((1280, 720), (900, 700), (640, 360), (390, 844)):
        tab.page.set_viewport_size({"width": width, "height": height})
        for name in (".fkv-status", ".fkv-source"):
            text = tab.page.locator(name)
            assert text.evaluate("(p) => p.scrollWidth <= p.clientWidth && p.scrollHeight <= p.clientHeight")


def test_the_run_can_be_taken_home_as_a_film(visit):
    tab = visit(query="?length=2")
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'done'")
    tab.page.get_by_role("button", name="Record to MP4").click()
    tab.press("Make MP4")
    link = tab.page.locator("#fkv-fetch", has_text="Download MP4: 2 chunks")
    link.wait_for()
    with tab.page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename.startswith("forcing-kv-studio-forcing-kv-full-")
    with av.open(str(download.value.path())) as film:
        frames = sum(1 for _ in film.decode(video=0))
    assert frames == 24
    tab.press("Go live")
    tab.page.locator("#fkv-fetch", has_text="Nothing recorded yet").wait_for()  # the old film is not the new run's


def test_everything_that_can_be_pressed_has_a_name(visit):
    tab = visit()
    tab.until("window.fkvStudio.player.at > 0")
    inside = (
        tab.page.get_by_label("Policy of A"),
        tab.page.get_by_label("What changes at which chunk"),
        tab.page.get_by_label("Plain"),
    )
    for name, part in zip(("Policies and parameters", "Storyboard", "Record to MP4"), inside, strict=True):
        tab.page.get_by_role("button", name=name).click()
        expect(part).to_be_visible()
    tree = tab.page.locator("body").aria_snapshot()
    roles = "button|link|checkbox|radio|slider|textbox|combobox|spinbutton|tab|switch"
    assert re.search(rf'- (?:{roles}) "', tree) and not re.findall(rf"- (?:{roles})\b(?! \")[^\n]*", tree)


def test_a_talk_fills_the_projector(visit):
    tab = visit(height=720, query="?talk=1")
    tab.until("window.fkvStudio.painted.A > 0")
    width = "(name) => document.querySelector(name).getBoundingClientRect().width"
    assert tab.page.evaluate(width, ".fkv-screen .fkv-frame") > 500
    tab.page.keyboard.press("4")
    expect(tab.page.locator(".fkv-both")).to_be_visible()
    assert tab.page.evaluate(width, ".fkv-both .fkv-frame") > 780
    assert tab.page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")


@pytest.mark.parametrize(("width", "height"), [(700, 500), (390, 844)])
def test_a_talk_in_a_narrow_frame_keeps_its_figures_in_one_row(visit, width, height):
    tab = visit(width=width, height=height, query="?talk=1")
    tab.until("window.fkvStudio.painted.A > 0")
    screens = tab.page.locator(".fkv-screen").all()
    assert len(screens) == 2
    for screen in screens:
        boxes = [each.bounding_box() for each in screen.locator("figcaption b").all() if each.is_visible()]
        assert len(boxes) == 2 and abs(boxes[0]["y"] - boxes[1]["y"]) < 3
        assert all(box["x"] + box["width"] <= width for box in (*boxes, screen.bounding_box()))


def test_the_video_stays_where_it_is_whatever_is_hinted(visit):
    tab = visit()
    tab.until("window.fkvStudio.painted.A > 0")
    top = lambda: tab.page.locator(".fkv-screens").bounding_box()["y"]  # noqa: E731
    before = top()
    tab.page.get_by_label("Prompt", exact=True).fill("an elephant ball ")
    expect(tab.page.locator(".fkv-hint")).to_contain_text("does not know")
    assert top() == before


def test_stop_answers_at_once_and_the_picture_s_button_pauses_the_stream(visit):
    tab = visit(query="?length=0&view=A")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.page.get_by_role("button", name="Pause the stream").click()
    tab.until("window.fkvStudio.state === 'paused'")
    tab.page.get_by_role("button", name="Resume the stream").click()
    tab.until("window.fkvStudio.state === 'live'")
    press = "document.getElementById('fkv-stop').click() ?? document.querySelector('.fkv-status').textContent"
    assert tab.page.evaluate(press) == "Stops after this chunk."
    tab.until("window.fkvStudio.state === 'done'")


def test_the_video_is_above_the_fold_without_bars_beside_it(visit):
    tab = visit(width=390, height=844)
    tab.until("window.fkvStudio.player.at > 0")
    bottom = "() => document.querySelector('.fkv-frame').getBoundingClientRect().bottom"
    wide = "(name) => document.querySelector(name).clientWidth"
    right = "(node) => node.getBoundingClientRect().right"
    for width, height in ((390, 844), (1366, 768), (1280, 720), (900, 700), (683, 384), (844, 390)):
        tab.page.set_viewport_size({"width": width, "height": height})
        for key, frame, around in (("1", ".fkv-screen .fkv-frame", ".fkv-screen"), ("2", ".fkv-frame", ".fkv-screen")):
            tab.page.keyboard.press(key)
            tab.page.wait_for_function(f"({bottom})() <= {height}")
            assert abs(tab.page.evaluate(wide, frame) - tab.page.evaluate(wide, around)) <= 1
        tab.page.keyboard.press("1")
        edge = tab.page.locator("#fkv-examples").evaluate(right)
        assert all(chip.evaluate(right) <= edge for chip in tab.page.locator("#fkv-examples button").all())
        assert tab.page.locator("#fkv-die").evaluate(right) <= width
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_pictures_keep_their_shape(visit):
    tab = visit(reduced_motion="reduce")
    tab.until("window.fkvStudio.painted.A > 0")
    tab.page.evaluate("""async () => {
      const picture = await createImageBitmap(new ImageData(208, 120));
      const { player } = window.fkvStudio;
      const pictures = Array(64).fill(picture);
      player.near.set(player.at, { A: pictures, B: pictures });
      player.shown = {};
    }""")
    tab.page.wait_for_function("""() => {
      const { width, height } = document.querySelector(".fkv-frame").getBoundingClientRect();
      return Math.abs(width / height - 208 / 120) < 0.02;
    }""")


def test_the_live_tab_fits_a_phone(visit):
    tab = visit(width=390)
    tab.until("window.fkvStudio.player.at > 0")
    for key in ("1", "4", "5"):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    boxes = [
        tab.page.locator(f".fkv-{part}").bounding_box()
        for part in ("status", "screens", "tools", "line", "xray", "charts")
    ]
    assert all(above["y"] + above["height"] <= below["y"] + 1 for above, below in pairwise(boxes))
    tab.page.get_by_role("button", name="Policies and parameters").click()
    for picker in tab.page.locator(".fkv-picker").all():
        assert picker.bounding_box()["height"] < 3000
        assert all(word.bounding_box()["width"] > 150 for word in picker.locator(".fkv-parameter-help").all())


def test_flush_and_cut_change_a_running_stream_and_come_back_from_the_address(visit):
    tab = visit(query="?length=0&view=A&a=infinity-rope")
    flush, cut = (tab.page.get_by_role("button", name=name, exact=True) for name in ("Flush", "Cut"))
    expect(flush).to_be_disabled()
    expect(cut).to_be_disabled()
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 2")
    tab.press("Flush")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text === 'flush')")
    tab.page.locator(".fkv-timeline").focus()
    tab.page.keyboard.press("x")
    tab.until("window.fkvStudio.marks.some((mark) => mark.text === 'cut')")
    tab.press("Stop")
    tab.until("window.fkvStudio.state === 'done'")
    story = parse_qs(urlsplit(tab.page.url).query)["story"][0].split("\n")
    assert [line.partition(": ")[2] for line in story] == ["flush", "cut"]


def test_undo_takes_the_last_change_back_in_the_stream_and_in_the_field(visit):
    tab = visit(query="?length=0&view=A&a=full")
    undo = tab.page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    prompt = tab.page.get_by_label("Prompt", exact=True)
    before = prompt.input_value()
    prompt.fill("a cyan star drifting over the sea at night")
    tab.press("Change prompt")
    tab.until("window.fkvStudio.marks.length === 2")
    undo.click()
    expect(prompt).to_have_value(before)
    tab.until("window.fkvStudio.marks.length === 3")
    assert tab.stage("marks")[2]["text"] == before
    undo.click()
    expect(tab.page.locator(".fkv-hint")).to_contain_text("no change of this run to take back")
    tab.press("Stop")


def test_the_tour_greets_once_ends_by_escape_and_is_reopened_from_the_help(visit):
    tab = visit(toured=False, reduced_motion="reduce")
    tour = tab.page.get_by_role("dialog", name="Tour")
    expect(tour).to_contain_text("1 of 4")
    tab.page.keyboard.press("Escape")
    expect(tour).to_be_hidden()
    tab.page.reload()
    tab.until("window.fkvStudio")
    expect(tour).to_be_hidden()
    help_button = tab.page.get_by_role("button", name="Keyboard help")
    help_button.focus()
    tab.page.keyboard.press("?")
    tab.page.get_by_role("button", name="Take the tour").click()
    for step in range(1, 5):
        expect(tour).to_contain_text(f"{step} of 4")
        expect(tab.page.locator(".fkv-toured")).to_be_in_viewport()
        tab.page.keyboard.press("Enter")  # the next step has the focus
    expect(tour).to_be_hidden()
    expect(help_button).to_be_focused()
    expect(tab.page.locator(".fkv-toured")).to_have_count(0)


def test_a_cut_is_refused_with_a_sentence_where_no_policy_has_one(visit):
    tab = visit(query="?length=0&view=A&a=forcing-kv")
    tab.press("Go live")
    tab.until("window.fkvStudio.player.rounds.length >= 1")
    tab.press("Cut")
    expect(tab.page.locator(".fkv-status")).to_contain_text("Not applied: no running policy has a cut")
    tab.press("Stop")


def test_a_picked_policy_and_its_parameters_write_the_field_and_read_it(visit):
    tab = visit()
    tab.page.get_by_role("button", name="Policies and parameters").click()
    field = tab.page.get_by_label("Policy of A", exact=True)
    rules = tab.page.get_by_role("radiogroup", name="Policies for A")
    expect(rules.get_by_role("radio", name="forcing-kv for A")).to_be_checked()
    rules.get_by_role("radio", name="forcing-kv for A").focus()
    tab.page.keyboard.press("ArrowDown")
    expect(field).to_have_value("dummy-forcing")
    rules.get_by_role("radio", name="longlive for A").check()
    expect(field).to_have_value("longlive")
    picture = rules.locator("label", has_text="longlive").locator("canvas").first
    before = picture.evaluate("(canvas) => canvas.toDataURL()")
    window = tab.page.get_by_label("window_frames of A")
    window.fill("15")
    window.press("Enter")
    expect(field).to_have_value("longlive:window_frames=15")
    changed = "([canvas, before]) => canvas.toDataURL() !== before"
    tab.page.wait_for_function(changed, arg=[picture.element_handle(), before])
    tab.page.get_by_label("relative of A").check()
    expect(field).to_have_value("longlive:window_frames=15,relative=true")
    window.fill("2")
    window.press("Enter")
    expect(tab.page.locator(".fkv-problem").first).to_contain_text("must exceed sink_frames")
    expect(field).to_have_value("longlive:window_frames=15,relative=true")
    field.fill("forcing-kv:retention=0.5")
    field.press("Enter")
    expect(rules.get_by_role("radio", name="forcing-kv for A")).to_be_checked()
    expect(tab.page.get_by_label("retention of A as a share")).to_have_value("0.5")
    assert tab.page.evaluate(DRAWN, ".fkv-rule canvas")


def test_the_xray_draws_the_pass_that_is_chosen(visit):
    tab = visit(query="?length=5&view=A&a=commit:3%20longlive")
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'done'")
    table = tab.page.locator('.fkv-xray canvas[data-stream="A"]')
    expect(table).to_have_attribute("aria-label", re.compile("last denoising step. all heads: frames 0–2 sink"))
    tab.page.get_by_label("Pass that the X-ray draws").select_option("context (reads other pages)")
    expect(table).to_have_attribute("aria-label", re.compile("context. all heads: .*6–11 held, not read, 12–14"))


def test_a_link_opens_a_tab_or_the_stage_alone(visit):
    tab = visit(query="?tab=heads&head=2.3")
    expect(tab.page.locator('.fkv-detail[data-head="2.3"]')).to_be_visible()
    tab.page.get_by_role("tab", name="Live").click()
    tab.page.wait_for_url(lambda address: "tab=" not in address and "head=" not in address)
    expect(tab.page.locator("#fkv-story .label-wrap")).to_have_attribute("aria-expanded", "false")
    phone = visit(query="?tab=compare", width=390)  # where Compare is in a menu
    expect(phone.page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    phone.page.get_by_role("button", name="More tabs").click()
    phone.page.get_by_role("button", name="Board", exact=True).click()
    phone.page.wait_for_url(lambda address: "tab=board" in address)
    stage = visit(query="?embed=1", width=900, height=560)
    expect(stage.page.get_by_label("Prompt", exact=True)).to_be_hidden()
    expect(stage.page.locator(".fkv-screen").first).to_be_in_viewport(ratio=0.95)
    stage.page.locator(".fkv-embedded").click()
    stage.until("window.fkvStudio.state === 'live' && !window.fkvStudio.player.loop")
    expect(stage.page.locator(".fkv-embedded")).to_be_hidden()


def test_the_frame_and_the_figures_that_are_shown_can_be_taken_home(visit, tmp_path):
    tab = visit(reduced_motion="reduce")
    tab.until("window.fkvStudio.player.rounds.length === window.fkvStudio.player.wanted")
    tab.page.keyboard.press("4")
    for button, ending in (("Frame (PNG)", ".png"), ("Figures (CSV)", ".csv")):
        with tab.page.expect_download() as download:
            tab.page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / f"file{ending}")
        assert re.fullmatch(
            rf"forcing-kv-studio-forcing-kv-full-recorded.*\{ending}", download.value.suggested_filename
        )
    assert cv2.imread(str(tmp_path / "file.png")).shape[1] >= 640
    rows = (tmp_path / "file.csv").read_text().splitlines()
    assert rows[0].startswith("chunk,stream,policy,prompt") and len(rows) == 1 + 2 * tab.stage("player.rounds.length")


def test_a_tap_moves_the_divider_and_words_make_a_prompt(visit):
    tab = visit(reduced_motion="reduce", has_touch=True)
    tab.page.keyboard.press("4")
    box = tab.page.locator(".fkv-both .fkv-frame").bounding_box()
    tab.page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 60)
    expect(tab.page.locator(".fkv-divider")).to_have_attribute("aria-valuenow", "80")
    tab.page.get_by_label("colour in the prompt").select_option("orange")
    tab.page.get_by_label("place in the prompt").select_option("city")
    expect(tab.page.get_by_label("Prompt", exact=True)).to_have_value("an orange ball bouncing over the city at sunset")
    tab.page.locator("#fkv-die").click()
    expect(tab.page.get_by_label("Seed")).not_to_have_value("0")


def test_a_stream_branches_into_two_futures_of_one_past(visit):
    tab = visit(query="?" + urlencode({"length": 4, "view": "A", "a": "forcing-kv", "b": "forcing-kv"}))
    tab.press("Go live")
    tab.until("window.fkvStudio.state === 'done' && window.fkvStudio.player.rounds.length === 4")
    before = hashes(tab, 3)
    tab.page.evaluate("window.fkvStudio.player.seek(1)")
    tab.still()
    tab.page.get_by_label("Prompt", exact=True).fill("a cyan star drifting over the sea at night")
    tab.page.get_by_role("button", name="Branch from here").click()
    tab.until(
        "window.fkvStudio.state === 'done' && window.fkvStudio.player.rounds.length === 4"
        " && Object.keys(window.fkvStudio.player.rounds[3].record.streams).length === 2"
    )
    tab.page.get_by_role("button", name="Storyboard").click()
    expect(tab.page.get_by_label("Where B leaves A")).to_have_value("3: a cyan star drifting over the sea at night")
    after = hashes(tab, 3)
    assert after[0] == before[0] and after[1] != after[0]
    assert "branch=3" in tab.page.evaluate("location.search")
    second = tab.page.locator('.fkv-screen[data-stream="B"]')
    tab.page.evaluate("window.fkvStudio.player.seek(0)")
    expect(second).to_be_hidden()  # the past is drawn once
    tab.page.evaluate("window.fkvStudio.player.seek(3)")
    expect(second).to_be_visible()
    assert tab.stage("marks")[1]["text"].startswith("branch 3: a cyan star")
