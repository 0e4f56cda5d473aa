"""The studio without a browser: who gets a turn, what is kept, what is sent, how it refuses to start."""

from __future__ import annotations

import inspect
import itertools
import re
import socket
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import get_type_hints

import cv2
import gradio as gr
import numpy as np
import pytest

from fkv.analysis.measures import colour_distance, colour_shares
from fkv.comparison import psnr
from fkv.pages import Pages
from fkv.policies import POLICIES, Full, parse
from fkv.report import frame_hash
from fkv.storyboard import SetPrompt
from fkv.stream import Stream
from fkv.studio.live import loop
from fkv.studio.live.attention_probe import step
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset
from fkv.studio.media.protocol import record, unpack
from fkv.studio.page import build
from fkv.studio.tabs import policy_field, policy_picker
from fkv.studio.tabs.live.policies import Policies
from fkv.studio.tabs.live.prompt import Prompt
from fkv.studio.theme import theme
from fkv.xray import xray


def plan(length: int = 3, view: str = "AB", **fields: object) -> Plan:
    return Plan.from_form(
        **{"prompt": "a red ball", "seed": 5, "length": length, "view": view, "a": "forcing-kv", "b": "full"} | fields
    )


@pytest.fixture
def run() -> Run:
    return Run(memory=1 << 20)


def test_gradio_can_read_the_types_by_which_it_gives_handlers_the_event_and_the_request(shipped):
    handlers = [each.fn for each in build(shipped, Registry()).fns.values() if inspect.isroutine(each.fn)]
    assert len(handlers) > 20
    for handler in handlers:
        get_type_hints(handler)


def test_words_that_are_not_read_are_said_of_every_field(shipped):
    with gr.Blocks():
        prompt = Prompt(shipped, Registry())
    said = prompt.hint_all("a red ball over the hills by day, a wizard", "6: a dragon over the sea", "9: a unicorn")
    assert all(word in said for word in ("wizard", "dragon", "unicorn"))
    assert "unicorn" in prompt.hint_all("a red ball", "6: nonsense = x", "9 seed=7: a unicorn")
    assert "dragon" in prompt.hint_all("a red ball", "6: a dragon", "nonsense")


def test_line_is_first_come_first_served():
    queue = Queue()
    with queue.join("a"):
        with queue.join("b"), queue.join("c"):
            assert [queue.place(ticket) for ticket in "abc"] == [0, 1, 2]
        with queue.join("d"):
            assert queue.place("d") == 1


def test_line_wakes_the_next_one():
    queue = Queue()
    turned = threading.Event()
    entered = threading.Event()

    def wait() -> None:
        with queue.join("b"):
            entered.set()
            while queue.place("b", wait=5):
                pass
            turned.set()

    with queue.join("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        entered.wait(5)
        assert not turned.is_set()
    thread.join(5)
    assert turned.is_set()


def test_run_forgets_its_oldest_chunks_when_memory_runs_out():
    run = Run(memory=10)
    for letter in (b"aaaa", b"bbbb", b"cccc"):
        run.put(letter)
    assert (run.count, run.get(0), run.get(1), run.get(2)) == (3, None, b"bbbb", b"cccc")


def test_registry_serves_chunks_by_key_until_the_visitor_leaves():
    registry = Registry()
    run = registry.begin("visitor")
    run.live = True
    run.put(b"chunk")
    assert (
        registry.chunk(run.key, 0) == b"chunk"
        and registry.chunk("é/../etc", 0) is None
        and registry.chunk(run.key, 1) is None
    )
    assert registry.of("visitor") is run and registry.of("other") is None and registry.of(None) is None
    registry.close("visitor")
    assert run.stopped and registry.chunk(run.key, 0) is None


def test_a_new_run_ends_the_visitor_s_last_one_and_finished_visitors_are_forgotten():
    registry = Registry(Limits(visitors=2))
    first, second = registry.begin("visitor"), registry.begin("visitor")
    assert first.stopped and not second.stopped
    others = [registry.begin(f"visitor {i}") for i in range(2)]
    second.put(b"")
    assert registry.chunk(second.key, 0) is None
    others[0].put(b"x")
    assert registry.chunk(others[0].key, 0) == b"x"


def test_live_packs_what_the_streams_make(small, run):
    asked = plan()
    manifests = list(live(small, asked, run, Queue(), Limits(lead=1e9)))
    assert [m["state"] for m in manifests] == ["live"] * 4 + ["done"] and manifests[-1]["chunks"] == 3
    reference = [Stream(small, policy, "a red ball", 5) for policy in asked.policies.values()]
    for number in range(3):
        record, jpegs = unpack(run.chunks()[number])
        chunks = [stream.step() for stream in reference]
        assert len(jpegs) == sum(chunk.video_frames for chunk in chunks)
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpegs[0], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.abs(picture.astype(int) - chunks[0].video[0]).mean() < 8
        assert [own["kv_bytes"] for own in record["streams"].values()] == [chunk.kv_bytes for chunk in chunks]
    again = Stream(small, Full(), "a red ball", 5)
    assert record["streams"]["B"]["hash"] == frame_hash([again.step() for _ in range(3)])


def test_every_chunk_says_how_far_colours_drift_and_how_far_the_streams_are_apart(small, run):
    run.add_change(SetPrompt("a blue star"))  # holds from the first chunk on
    *_, last = live(small, plan(), run, Queue(), Limits(lead=1e9))
    qualities = [unpack(chunk)[0]["quality"] for chunk in run.chunks()]
    streams = [Stream(small, policy, "a blue star", 5) for policy in plan().policies.values()]
    videos = [[stream.step().video for _ in qualities] for stream in streams]
    for number, quality in enumerate(qualities):
        apart = [colour_distance(*map(colour_shares, (own[0], own[number]))) for own in videos]
        assert list(quality["drift"].values()) == pytest.approx(apart, abs=1e-4)
        decibels = psnr(*(own[number] for own in videos))
        assert quality["psnr"] == (None if decibels is None else pytest.approx(decibels, abs=1e-4))
    assert qualities[0]["drift"] == {"A": 0, "B": 0} and any(quality["drift"]["A"] > 0 for quality in qualities)


def test_streams_go_first_by_turns_and_a_pause_is_not_caught_up_with(small, run, monkeypatch):
    turns, rests = [], []

    class Steps:
        busy = ()

        def step(self, streams, turn, watch, seconds):
            turns.append(list(turn))
            run.paused_seconds += 60
            return step(streams, turn, watch)

        def close(self):
            turns.append("closed")

    def rest(seconds):
        rests.append(seconds)
        run.paused_seconds -= seconds

    monkeypatch.setattr(run, "rest", rest)
    list(live(small, plan(3), run, Queue(), Limits(), partial(loop.generate, small, stepping=Steps)))
    assert turns == [["A", "B"], ["B", "A"], ["A", "B"], "closed"]
    assert len(rests) == 2 and all(30 < seconds < 62 for seconds in rests)


def test_closing_the_iterator_leaves_the_line(small, run):
    queue = Queue()
    stream = live(small, plan(0), run, queue, Limits(lead=1e9))
    for _ in range(2):
        next(stream)
    assert run.live
    stream.close()
    assert not run.live
    with queue.join("next"):
        assert queue.place("next") == 0


def test_prompt_change_is_marked_and_a_bad_one_is_answered(small, run):
    texts = []
    for manifest in itertools.islice(live(small, plan(4, "A"), run, Queue(), Limits(lead=1e9)), 6):
        texts.append(manifest["text"])
        if run.count == 1:
            run.add_change(SetPrompt("a blue star", recache=True))
        if run.count == 2:
            run.add_change(SetPrompt("  "))
    assert unpack(run.chunks()[1])[0]["events"] == ["re-cache = a blue star"]
    assert any("Not applied" in text for text in texts)


def test_pause_stop_and_time_limits_end_a_run_with_a_sentence(small):
    def last(limits: Limits, act=lambda run: None) -> str:
        run = Run(1 << 20)
        text = ""
        for manifest in live(small, plan(0, "A"), run, Queue(), limits):
            text = manifest["text"]
            if run.count == 1:
                act(run)
        return text

    assert last(Limits(lead=1e9), Run.stop) == "Stopped after 1 chunk."
    assert "a run may last at most" in last(Limits(seconds=0.0, lead=1e9))
    assert "a pause may last at most" in last(Limits(pause=0.01, lead=1e9), lambda run: run.pause(True))


def test_a_failure_is_a_sentence_not_a_traceback(small, run, monkeypatch):
    monkeypatch.setattr(Stream, "step", lambda self: 1 / 0)
    *_, last = live(small, plan(), run, Queue(), Limits())
    assert last["state"] == "error" and "failed after 0 of 3 chunks" in last["text"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " "}, "empty"),
        ({"seed": None}, "seed"),
        ({"seed": -1}, "seed"),
        ({"length": 1.5}, "whole number"),
        ({"length": -2}, "0: endless. must be a whole number from 0 to 100000, not -2"),
        ({"a": "nonsense"}, "no policy"),
        ({"a": "forcing-kv:x=1"}, "no parameter"),
    ],
)
def test_bad_forms_get_a_sentence(fields, words):
    with pytest.raises(ValueError, match=words):
        plan(**fields)


def test_xray_covers_exactly_the_pages_that_were_attended(small):
    stream = Stream(small, parse("forcing-kv:segments_per_frame=2"), "a red ball", 0)
    for _ in range(4):
        chunk = stream.step()
    for group in xray(chunk):
        pages = chunk.pages[group["name"]]
        drawn = {
            (f, s)
            for first, last, _, held in group["runs"]
            for f in range(first, last + 1)
            for s in range(2)
            if held >> s & 1
        }
        assert drawn == set(zip(pages.frame.tolist(), pages.segment.tolist(), strict=True))
        kinds = {frame: kind for first, last, kind, _ in group["runs"] for frame in range(first, last + 1)}
        assert kinds[0] == "sink" and kinds[chunk.frames[0] - 1] == "anchor" and kinds[chunk.frames[-1]] == "current"


def test_xray_parts_frames_that_differ_or_are_no_neighbours(small):
    chunk = Stream(small, Full(), "a red ball", 0).step()
    frames = np.array([0, 1, 2, 4, 9, 10, 11])
    kinds = ("sink", "sink", "kept", "kept", "current", "current", "current")
    pages = {"all": Pages(np.arange(7), frames, np.zeros(7, int), frames, np.zeros(7, bool))}
    (group,) = xray(replace(chunk, frames=(9, 10, 11), pages=pages, kinds={"all": kinds}))
    assert group["heads"] == 12
    assert group["runs"] == [[0, 1, "sink", 1], [2, 2, "kept", 1], [4, 4, "kept", 1], [9, 11, "current", 1]]


def test_xray_says_where_frames_are_read_and_which_are_edited(small):
    stream = Stream(small, parse("mem-rope"), "a red ball", 0)
    chunk = [stream.step() for _ in range(8)][-1]
    (group,) = xray(chunk)
    at = {frame: frame for frame in range(24)}
    for first, last, position in group["positions"]:
        at |= {frame: position + frame - first for frame in range(first, last + 1)}
    assert [at[frame] for frame in (0, 1, 2, 3, 4, *range(17, 24))] == list(range(12))
    assert group["edited"] == [3, 4]
    assert "positions" not in xray(Stream(small, Full(), "a red ball", 0).step())[0]


@pytest.mark.parametrize(
    "text, other",
    [
        ("full", set()),
        ("mpcache:segments_per_frame=4,threshold=0", set()),
        ("mpcache:segments_per_frame=4,threshold=0,ratio2=0.1,reuse_steps=false", {"step 0", "context"}),
        ("commit:3 sliding-window", {"context"}),
    ],
)
def test_a_record_has_the_page_tables_of_passes_that_read_otherwise(small, text, other):
    stream = Stream(small, parse(text), "a red ball", 0)
    chunk = [stream.step() for _ in range(6)][-1]
    told = record(chunk, stream, "")
    assert list(told["passes"]) == ["step 0", "step 1", "context"]
    assert {name for name, groups in told["passes"].items() if groups} == other
    assert all(told["passes"][name] != told["xray"] for name in other)
    if "commit" in text:
        (group,) = told["passes"]["context"]
        read = {frame for first, last, kind, _ in group["runs"] if kind != "held" for frame in range(first, last + 1)}
        assert read == {15, 16, 17}


def test_xray_splits_masks_of_many_segments_into_numbers_that_javascript_can_shift(small):
    chunk = Stream(small, Full(), "a red ball", 0).step()
    segments = np.array([0, 31, 59])
    pages = Pages(np.arange(3), np.zeros(3, int), segments, np.zeros(3, int), np.zeros(3, bool))
    kinds = {"all": ("kept",) * 3}
    (group,) = xray(replace(chunk, segments=60, pages={"all": pages}, kinds=kinds))
    assert group["runs"] == [[0, 0, "kept", [1, 1 << 1 | 1 << 29]]]


def test_app_refuses_with_one_sentence(capsys):
    from fkv.studio import launch

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert launch.main(["--port", port]) == 2
        assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err
    assert launch.main(["--model", "nonsense", "--port", port]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_step_makes_one_chunk_of_a_paused_run(small, run):
    counts = []
    run.pause(True)
    for manifest in live(small, plan(0, "A"), run, Queue(), Limits(lead=1e9)):
        if manifest["state"] == "paused":
            counts.append(run.count)
            run.stop() if run.count == 2 else run.step()
    assert counts == [0, 1, 2]


def test_a_stream_that_makes_one_more_chunk_is_resumed_by_the_next_press(run):
    run.toggle()
    run.step()
    assert not run.paused
    run.toggle()
    assert not run.control.paused


def test_pinned_chunks_are_served_and_a_visitor_s_last_run_is_kept():
    registry, recorded = Registry(), Run(1 << 10)
    recorded.put(b"chunk")
    registry.pin(recorded)
    assert registry.chunk(recorded.key, 0) == b"chunk" and registry.last("visitor") is None
    run = registry.begin("visitor")
    run.put(b"other")
    assert registry.of("visitor") is None and registry.last("visitor") is run and run.chunks() == [b"other"]


@pytest.mark.parametrize("text", [None, "", " ", "nonsense", ["full"]])
def test_a_field_without_a_policy_leaves_the_form_in_order(small, text):
    assert policy_field.views(text, "full") == [("A", "A"), ("full", "B"), ("Both", "AB")]
    assert "not available" not in policy_field.recache_info(text, "full")
    picked = policy_picker.picked(small, "A", text)
    assert picked["name"] is None and picked["problem"].endswith(".")


def test_the_picker_offers_every_policy_once_with_its_drawing_and_parameters():
    rules = [rule for family in policy_picker.catalogue() for rule in family["policies"]]
    assert sorted(rule["name"] for rule in rules) == sorted(POLICIES)
    assert all(rule["reading"] and rule["drawing"]["groups"] for rule in rules)
    (hybrid,) = (rule for rule in rules if rule["name"] == "forcing-kv")
    controls = {each["name"]: (each["control"], each["whole"]) for each in hybrid["parameters"]}
    assert controls["retention"] == ("share", False) and controls["sink_frames"] == ("number", True)
    assert controls["fp8"] == ("checkbox", False) and controls["commit"] == ("number", True)
    assert all(
        ("commit" in {each["name"] for each in rule["parameters"]}) == (rule["name"] not in ("recompute", "per-step"))
        for rule in rules
    )


def test_another_parameter_keeps_what_else_a_policy_says(small):
    field = "commit:6 forcing-kv:anchor_frames=2 without 3.2"
    values = policy_picker.picked(small, "A", field)["values"]
    assert values["anchor_frames"] == "2" and values["retention"] == "0.33" and values["fp8"] == "false"
    changed = policy_picker.choose(field, "forcing-kv", values | {"retention": "1.00", "fp8": "true"})
    assert changed == "commit:6 forcing-kv:anchor_frames=2,retention=1.0,fp8=true without 3.2"
    assert policy_picker.choose(field, "longlive", {}) == "commit:6 longlive without 3.2"
    assert policy_picker.choose("nonsense", "full", {}) == "full"


def test_the_picker_lets_the_context_pass_of_any_rule_read_less(small):
    assert policy_picker.picked(small, "A", "commit:6 longlive without 1.2")["values"]["commit"] == "6"
    assert policy_picker.choose("longlive without 1.2", "longlive", {"commit": "3"}) == "commit:3 longlive without 1.2"
    assert policy_picker.choose("commit:3 longlive", "longlive", {"commit": "0"}) == "longlive"
    with pytest.raises(ValueError, match="should be written commit:FRAMES POLICY"):
        policy_picker.choose("longlive", "longlive", {"commit": "-1"})


def test_the_picker_says_what_a_policy_holds_and_reads_on_this_model(small):
    figures = {
        text: policy_picker.picked(small, "A", text)["figures"]
        for text in (
            "commit:3 longlive",
            "sliding-window:window_frames=6",
            "dummy-forcing",
            "per-step",
            "relax-forcing",
        )
    }
    assert figures["commit:3 longlive"] == (
        "After 24 chunks (18 s) on this model, a head holds 12 frames, 0.2 MB of K and V in all. "
        "Denoising reads 12 frames, the context pass 3 frames."
    )
    assert "a head holds 6 frames, 0.1 MB" in figures["sliding-window:window_frames=6"]
    assert figures["dummy-forcing"].endswith("What it keeps and reads depends on the video.")
    assert figures["per-step"].endswith("Denoising reads 72 frames.")
    assert "holds 72 frames" in figures["relax-forcing"] and "Denoising reads 7 frames" in figures["relax-forcing"]
    unfit = policy_picker.picked(small, "A", "forcing-kv:segments_per_frame=7")
    assert unfit["name"] == "forcing-kv" and "7 segments do not divide the 12 tokens" in unfit["problem"]


def test_the_drawing_of_the_picker_follows_the_parameters(small):
    def picked(text):
        return policy_picker.picked(small, "A", text)

    drawn = picked("sliding-window:window_frames=8,sink_frames=2")["drawing"]
    assert drawn["frames"] == 42
    assert drawn["groups"][0]["runs"] == [[0, 1, "sink", 1], [36, 38, "kept", 1], [39, 41, "current", 1]]
    assert [group["name"] for group in picked("longlive without 1.2")["drawing"]["groups"]] == ["all", "silent"]
    assert picked("longlive")["drawing"] is None and picked("nonsense")["drawing"] is None
    hybrid = picked("forcing-kv:segments_per_frame=4")
    assert hybrid["drawing"] and hybrid["figures"].endswith("the drawing shows a random choice.")
    watching = picked("mpcache:segments_per_frame=4")
    assert watching["drawing"] is None
    assert watching["figures"].endswith("The drawing is that of its default parameters.")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("nothing", {}, "there is no policy 'nothing'"),
        ("sliding-window", {"window_frames": ""}, "window_frames must be a number"),
        ("sliding-window", {"sink_frames": "9", "window_frames": "9"}, "must exceed sink_frames"),
        ("full", {"sink_frames": "1"}, "has no parameter 'sink_frames'"),
    ],
)
def test_the_picker_refuses_what_no_policy_can_be(name, values, words):
    with pytest.raises(ValueError, match=words):
        policy_picker.choose("full", name, values)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two #rrggbb colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("rule", "dark"), [(":root", ""), ("body.dark", "_dark")])
def test_text_and_edges_have_contrast_in_both_themes(rule, dark):
    block = re.search(re.escape(rule) + r" \{(.*?)\}", page_asset("style.css"), re.DOTALL).group(1)
    colours, look = dict(re.findall(r"--fkv-([a-z-]+): (#[0-9a-f]{6});", block)), theme()
    page = getattr(look, f"body_background_fill{dark}")
    for ground in (colours["panel"], page):
        for text in ("ink", "soft"):
            assert contrast(colours[text], ground) >= 4.5, (text, ground)
        assert contrast(colours["edge"], ground) >= 3
    for text, ground in (
        ("body_text_color", "body_background_fill"),
        ("body_text_color_subdued", "body_background_fill"),
        ("block_label_text_color", "block_background_fill"),
        ("block_info_text_color", "block_background_fill"),
        ("button_primary_text_color", "button_primary_background_fill"),
        ("button_primary_text_color", "button_primary_background_fill_hover"),
        ("button_secondary_text_color", "button_secondary_background_fill"),
        ("link_text_color", "block_background_fill"),
        ("input_placeholder_color", "input_background_fill"),
    ):
        assert contrast(getattr(look, text + dark), getattr(look, ground + dark)) >= 4.5, (text, ground)


def test_the_end_names_the_policies_that_ran(small):
    def last(**changes: str) -> str:
        run = Run(1 << 20)
        plan = Plan.from_form(prompt="a red ball", seed=0, length=4, view="AB", a="full", b="sliding-window", **changes)
        return list(live(small, plan, run, Queue(), Limits(lead=1e9)))[-1]["text"]

    assert last().endswith("full and sliding-window side by side, same noise.")
    changed = last(story="3: B = full\n3: A = forcing-kv\n4: A = dummy-forcing")
    assert changed.endswith(
        "A full, from chunk 3 forcing-kv, from chunk 4 dummy-forcing; B sliding-window, from chunk 3 full; same noise."
    )


@pytest.mark.parametrize("data", [None, [], {}, {"stream": "C", "policy": "full"}])
def test_an_event_that_says_no_policy_changes_none(data):
    event = gr.EventData(None, data)
    assert Policies.say_policy(SimpleNamespace(), "full", "forcing-kv", event, None) == ["full", "forcing-kv"]
