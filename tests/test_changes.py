"""Changes at any moment: before the first chunk, several at one border, in the last chunk, in any order."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fkv import policies
from fkv.commands.main import main
from fkv.storyboard import Change, SetPolicy, SetPrompt, SetRoles, SetSteps, SilenceHead, Storyboard, parse
from fkv.storyboard.lines import read_change
from fkv.stream import Stream
from fkv.stream.state import StreamState
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run

NAMES = (
    "full",
    "sliding-window",
    "forcing-kv:segments_per_frame=4",
    "dummy-forcing",
    "deep-forcing:window_frames=9,sink_frames=2,capacity_frames=6,recent_frames=3",
    "mem-rope",
    "relax-forcing:reservoir_frames=12",
    "tether-cache:budget_frames=9,sink_frames=2,recent_frames=4",
    "longlive:global_sink=false",
    "infinity-rope",
    "per-step",
    "recompute",
)
PROMPTS = st.sampled_from(("a blue star", "a pink box in the city"))
CHANGES = st.one_of(
    st.builds(SetPrompt, PROMPTS, st.booleans(), st.booleans()),
    st.builds(SetPolicy, st.just("A"), st.sampled_from(NAMES)),
    st.builds(SetSteps, st.integers(1, 2)),
    st.builds(SilenceHead, st.just("A"), st.tuples(st.integers(0, 2), st.integers(0, 3))),
    st.tuples(st.integers(0, 2), st.integers(0, 3)),  # the head whose role is flipped
    st.sampled_from(("flush", "cut")),
)
BORDERS = st.lists(st.lists(CHANGES, max_size=3), min_size=1, max_size=4)


def change(live: Stream, each: Change | tuple[int, int] | str) -> None:
    """Make a change, or be refused with a sentence."""
    try:
        if isinstance(each, str):
            getattr(live, each)()
        elif isinstance(each, tuple):
            SetRoles(live.roles.flipped(*each)).apply({"A": live})
        else:
            each.apply({"A": live})
    except ValueError as error:
        assert str(error)


@given(st.sampled_from(NAMES), BORDERS)
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_changes_ends_a_stream(small, name, borders):
    live = Stream(small, policies.parse(name), "a red ball over the sea")
    for index, changes in enumerate(borders):
        for each in changes:
            change(live, each)
        expected = live.next_policy
        chunk = live.step()
        assert chunk.index == index and chunk.policy == expected.name == live.policy.name
        assert torch.isfinite(chunk.latents).all()
        assert chunk.video_frames and chunk.kv_bytes > 0


@pytest.mark.parametrize("then", ["infinity-rope", "infinity-rope:window_frames=9"])
def test_after_a_switch_the_keys_of_the_chunk_are_read_where_its_queries_are(small, then):
    live = Stream(small, policies.parse("sliding-window:sink_frames=1,window_frames=5"), "a red ball over the sea")
    [live.step() for _ in range(4)]
    live.set_policy(policies.parse(then))
    window = live.next_policy.window_frames
    for chunk in (live.step(), live.step()):
        (read,) = chunk.read.values()
        at = dict(zip(read.frame.tolist(), read.position.tolist(), strict=True))
        assert [at[frame] for frame in chunk.frames] == [window - 3, window - 2, window - 1]
        earlier = sorted(set(at) - set(chunk.frames))
        assert [at[frame] for frame in earlier] == [*range(window - 3 - len(earlier), window - 3)]


@pytest.mark.parametrize("before", ["infinity-rope", "mem-rope", "ca2-vdm:prefix_frames=9"])
@pytest.mark.parametrize(
    "then", ["full", "sliding-window", "forcing-kv:segments_per_frame=4", "near-sink", "shot-sink", "tether-cache"]
)
def test_after_a_switch_the_past_is_as_near_as_it_was(small, before, then):
    live = Stream(small, policies.parse(before), "a red ball over the sea", decode=False)
    for _ in range(6 if then == "tether-cache" else 10):
        live.step()
    live.set_policy(policies.parse(then))
    for chunk in (live.step(), live.step()):
        for pages in chunk.read.values():
            at = dict(zip(pages.frame.tolist(), pages.position.tolist(), strict=True))
            first = chunk.frames[0]
            assert at[first] - at[first - 1] == 1


def test_a_flush_within_the_first_chunks_of_id_forcing_leaves_no_key_ahead_of_the_queries(small):
    live = Stream(small, policies.parse("id-forcing"), "a red ball over the sea", decode=False)
    for _ in range(4):
        live.step()
    live.flush()
    for cached in ([0, 10, 11], [0, 10, 11, 12, 13, 14]):
        pages = live.step().read["all"]
        read = sorted(zip(pages.position.tolist(), pages.frame.tolist(), strict=True))
        assert read == list(enumerate([*cached, *range(cached[-1] + 1, cached[-1] + 4)]))


@pytest.mark.parametrize("begin", ["tether-cache:budget_frames=9,sink_frames=2", "sliding-window"])
def test_the_memory_of_tether_cache_fills_again_after_a_flush_or_a_late_switch(small, begin):
    live = Stream(small, policies.parse(begin), "a red ball over the sea", decode=False)
    for _ in range(6):
        live.step()
    if begin == "sliding-window":
        live.set_policy(policies.parse("tether-cache:budget_frames=9,sink_frames=2"))
    else:
        live.flush()
    for chunk in [live.step() for _ in range(5)]:
        for pages in chunk.read.values():
            assert len(set(pages.frame.tolist())) == len(pages)
            assert sorted(pages.position[pages.frame >= chunk.frames[0] - 1]) == [5, 6, 7, 8]
    assert set(chunk.kv_tokens_read.values()) == {8 * 12}, "all but frame 1, which the sink has lost"


@pytest.mark.parametrize("then, slots", [("fade-mem:warp=0.4", 12), ("fade-mem:slots=8", 8)])
def test_no_frame_enters_the_memory_of_fade_mem_twice(small, then, slots):
    live = Stream(small, policies.parse("fade-mem"), "a red ball over the sea", decode=False)
    for _ in range(7):
        live.step()
    live.set_policy(policies.parse(then))
    for chunk in (live.step(), live.step()):
        assert len(chunk.read["all"]) == len(set(chunk.read["all"].frame.tolist())) == slots + 3
        assert set(range(chunk.frames[0] - 2, chunk.frames[0])) <= set(chunk.read["all"].frame.tolist())


def test_fade_mem_forgets_what_a_flush_drops(small):
    live = Stream(small, policies.parse("fade-mem"), "a red ball over the sea", decode=False)
    for _ in range(7):
        live.step()
    live.flush()
    live.step()
    cache = live.caches[0]
    assert [entry.frame for entry in live.policy.entries(cache)] == cache.frames() == [0, 19, 20, 21, 22, 23]


@pytest.mark.parametrize("before", ["forcing-kv:segments_per_frame=4", "sliding-window:sink_frames=0,window_frames=4"])
def test_dummy_forcing_classifies_heads_that_hold_less_than_a_chunk(small, before):
    live = Stream(small, policies.parse(before), "a red ball over the sea", decode=False)
    for _ in range(5):
        live.step()
    live.set_policy(policies.parse("dummy-forcing:classify_chunk=2"))
    chunks = [live.step() for _ in range(2)]
    assert "dummy" in chunks[-1].kv_tokens and chunks[-1].latents.isfinite().all()


def test_other_classes_of_the_same_roles_regroup_the_heads(small):
    live = Stream(small, policies.parse("pyramid-forcing"), "a red ball over the sea", decode=False)
    live.step()
    wave, anchor = small.roles.heads("dynamic"), small.roles.heads("static")
    classes = {"wave": wave, "anchor": anchor, "veil": ((),) * 3}
    live.set_roles(replace(small.roles, provenance={"classes": classes}))
    chunk = live.step()
    assert chunk.heads["wave"] == wave and chunk.events == ("roles: other classes",)
    live.set_roles(live.roles)
    assert live.step().events == ()


def test_merged_blocks_of_veil_heads_stay_when_another_head_is_silenced(small):
    classes = {"wave": ((0,),) * 3, "anchor": ((1,),) * 3, "veil": ((2, 3),) * 3}
    roles = replace(small.roles, provenance={"classes": classes})
    live = Stream(small, policies.parse("pyramid-forcing"), "a red ball over the sea", roles=roles, decode=False)
    for _ in range(8):
        live.step()
    pages = live.caches[0].groups["veil"].pages
    assert pages.edited.any()
    SilenceHead("A", (0, 0)).apply({"A": live})
    held = live.step().pages["veil"]
    assert held[held.edited].names == pages[pages.edited].names


def test_changes_of_heads_at_one_border_add_up(small):
    live = Stream(small, policies.parse("forcing-kv"), "a red ball", decode=False)
    live.step()
    for line in ("heads = 1.1 dynamic", "heads = 1.3 static"):
        read_change(line, None).apply({"A": live})
    assert live.next_roles != live.roles
    assert live.step().events == ("roles: 1.1 dynamic, 1.3 static",)


def test_embeddings_take_the_place_of_a_prompt(small):
    one, two = (small.encode(prompt) for prompt in ("a red ball", "a blue star"))
    live = Stream(small, policies.parse("full"), "a red ball", decode=False)
    live.step()
    live.set_text(two)
    chunk = live.step()
    assert chunk.events == ("text",) and chunk.prompt == ""
    live.set_prompt("a red ball")
    assert live.step().events == ("prompt: a red ball",)
    for text, words in ((one[:, :, :3], "embeddings must be"), (torch.cat([one, two]), "2 texts for a batch of 1")):
        with pytest.raises(ValueError, match=words):
            live.set_text(text)
    with pytest.raises(ValueError, match="no shared cache to recompute"):
        Stream(small, policies.parse("per-step"), "a red ball").set_text(two, recache=True)


def test_one_prompt_is_that_of_every_video_of_a_batch(small):
    one, two = (small.encode(prompt) for prompt in ("a red ball", "a blue star"))
    streams = [Stream(small, policies.parse("memflow"), text=torch.cat([one, one]), decode=False) for _ in range(2)]
    for each in streams:
        each.step()
    streams[0].set_prompt("a blue star")
    streams[1].set_text(torch.cat([two, two]))
    torch.testing.assert_close(*(each.step().latents for each in streams))


def recomputed(monkeypatch) -> list[torch.Tensor]:
    """The latents of every pass that a re-cache runs."""
    latents = []
    rebuild = StreamState.rebuild
    monkeypatch.setattr(StreamState, "rebuild", lambda self, x, *rest: latents.append(x) or rebuild(self, x, *rest))
    return latents


@pytest.mark.parametrize("before, later", [("infinity-rope", 0), ("sliding-window", 1)])
def test_a_recache_after_a_switch_recomputes_the_newest_frames_that_are_there(small, monkeypatch, before, later):
    live = Stream(small, policies.parse(before), "a red ball over the sea", decode=False)
    made = [live.step().latents for _ in range(10)]
    live.set_policy(policies.parse("longlive"))
    made += [live.step().latents for _ in range(later)]
    latents = recomputed(monkeypatch)
    live.set_prompt("a blue star", recache=True)
    live.step()
    chunks = latents[0].shape[1] // 3
    assert chunks >= 1 and torch.equal(latents[0], torch.cat(made[-chunks:], 1))


@pytest.mark.parametrize("chunks, opens", [(2, True), (6, False)])
def test_only_a_recache_from_the_first_frame_on_opens_a_stream(small, monkeypatch, chunks, opens):
    live = Stream(small, policies.parse("longlive:global_sink=false"), "a red ball over the sea", decode=False)
    for _ in range(chunks):
        live.step()
    opening = []
    rebuild = StreamState.rebuild

    def watched(self, latents, cache, rope):
        opening.append(cache.opening)
        rebuild(self, latents, cache, rope)

    monkeypatch.setattr(StreamState, "rebuild", watched)
    live.set_prompt("a blue star", recache=True)
    live.step()
    assert opening == [opens]


@pytest.mark.parametrize(
    "text, chunks",
    [("mem-rope", 3), ("mem-rope", 4), ("mem-rope", 5), ("longlive:window_frames=10", 4), ("commit:15 longlive", 6)],
)
def test_a_recache_leaves_every_frame_once(small, text, chunks):
    live = Stream(small, policies.parse(text), "a red ball over the sea", decode=False)
    for _ in range(chunks):
        live.step()
    before = live.caches[0].frames()
    live.set_prompt("a blue star", recache=True)
    chunk = live.step()
    (pages,) = chunk.pages.values()
    assert sorted(pages.frame.tolist()) == [*before, *chunk.frames]
    (read,) = chunk.read.values()
    assert len(set(read.position.tolist())) == len(read)


@pytest.mark.parametrize("then", ["full", "forcing-kv:segments_per_frame=4", "per-step", "tether-cache"])
def test_a_policy_switched_before_the_first_chunk_is_as_one_that_began(small, then):
    began = Stream(small, policies.parse(then), "a red ball over the sea", decode=False)
    wanted = [began.step() for _ in range(3)]
    for begin in NAMES:
        switched = Stream(small, policies.parse(begin), "a red ball over the sea", decode=False)
        switched.set_policy(policies.parse(then))
        for other in wanted:
            one = switched.step()
            assert torch.equal(one.latents, other.latents) and one.kv_bytes == other.kv_bytes, begin


@pytest.mark.parametrize("name", NAMES)
def test_a_recache_before_the_first_chunk_computes_nothing_and_takes_the_prompt(small, name):
    live = Stream(small, policies.parse(name), "a red ball over the sea")
    said = SetPrompt("a blue star", recache=True).apply({"A": live})
    began = Stream(small, policies.parse(name), "a blue star")
    first, other = live.step(), began.step()
    assert (said is None) == (live.policy.caches == "shared")
    assert first.prompt == "a blue star" and first.events == ("prompt: a blue star",)
    assert torch.equal(first.latents, other.latents)
    assert (first.timings.rebuild > 0) == (other.timings.rebuild > 0)


def test_roles_and_threshold_change_before_the_first_chunk(shipped):
    for line in (
        "1: threshold = 0.5",
        "1: A = full",
        "1: re-cache = a blue star",
        "1: A = forcing-kv\n1: A = per-step",
    ):
        live = Stream(shipped, policies.parse("forcing-kv"), "a red ball")
        story: Storyboard = parse(line, shipped.roles)
        for cue in story.cues:
            cue.change.apply({"A": live})
        assert live.step().events


def test_a_cache_in_which_nothing_is_left_changes_too(small):
    live = Stream(small, policies.parse("full"), "a red ball")
    live.step()
    for cache in live.caches:
        cache.evict({name: torch.zeros(len(group.pages), dtype=bool).numpy() for name, group in cache.groups.items()})
    for name in ("forcing-kv:segments_per_frame=4", "full"):
        live.set_policy(policies.parse(name))
        live.set_prompt("a blue star", recache=True)
        assert live.step().policy == policies.parse(name).name


@given(
    st.lists(st.tuples(st.integers(1, 2), st.sampled_from(("full", "forcing-kv", "sliding-window"))), max_size=3),
    st.lists(st.tuples(st.integers(1, 2), PROMPTS), max_size=2),
    st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_no_sequence_of_switches_and_prompts_ends_the_command(small_by_default, switches, prompts, recache):
    command = ["stream", "--chunks", "2"]
    command += [part for chunk, policy in switches for part in ("--switch", f"{chunk}:{policy}")]
    command += [part for chunk, prompt in prompts for part in ("--say", f"{chunk}:{prompt}")]
    command += ["--recache"] if recache and any(chunk > 1 for chunk, _ in prompts) else []
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(command)
    assert code == 0, said.getvalue()
    chunks = json.loads(out.getvalue())["chunks"]
    assert len(chunks) == 2
    last = {chunk: policy for chunk, policy in sorted(switches, key=lambda each: each[0])}
    assert chunks[0]["policy"] == last.get(1, "forcing-kv")


@given(st.sampled_from(NAMES[:3]), st.sampled_from(("before", "paused")), BORDERS)
@example(
    "full", "before", [[], [], [SilenceHead("A", (0, 0))], [SetPolicy("A", NAMES[4])]]
)  # which has nothing to choose from
@settings(max_examples=15, deadline=None)
def test_no_sequence_of_changes_ends_a_live_run(small, name, moment, borders):
    run = Run(1 << 30)
    limits = Limits(lead=float("inf"), idle=float("inf"))
    plan = Plan.from_form(prompt="a red ball over the sea", seed=1, length=len(borders), view="AB", a=name, b="full")

    def add(changes: list[Change | tuple[int, int] | str]) -> None:
        for each in changes:
            if isinstance(each, Change):
                run.add_change(each)

    add(borders[0])  # while the run waits in the queue
    if moment == "paused":
        run.pause(True)
    last = {}
    for last in live(small, plan, run, Queue(), limits):
        if last["state"] == "paused":
            add(borders[0])
            run.pause(False)
        elif last["state"] == "live" and 0 < run.count < len(borders):
            add(borders[run.count])
    assert (last["state"], run.ended, run.count) == ("done", "finished", len(borders)), last["text"]
