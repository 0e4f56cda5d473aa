"""Storyboards: what a line asks for, what a run tells of itself, and that the one brings the other back."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fkv import policies
from fkv.models.base import VideoModel
from fkv.roles import from_scores
from fkv.storyboard import (
    Cue,
    Cut,
    Flush,
    SetPolicy,
    SetPrompt,
    SetRoles,
    SetSteps,
    SetThreshold,
    SilenceHead,
    Storyboard,
    at_threshold,
    check,
    parse,
    write,
)
from fkv.stream import Stream, check_prompt
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.protocol import unpack

SCORES = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.fixture
def scored(small) -> VideoModel:
    return replace(small, roles=from_scores(SCORES, 0.5))


def play(
    model: VideoModel,
    story: str,
    act=lambda run: None,
    length: int = 4,
    b: str = "full",
    steps: int | None = None,
) -> list[dict]:
    """The records of a run with this storyboard; `act` is called before each chunk."""
    run = Run(1 << 20)
    plan = Plan.from_form(
        prompt="a red ball",
        seed=5,
        length=length,
        view="AB",
        a="forcing-kv",
        b=b,
        story=story,
        steps=steps,
        roles=model.roles,
    )
    for manifest in live(model, plan, run, Queue(), Limits(lead=1e9)):
        assert manifest["state"] != "error", manifest["text"]
        act(run)
    return [unpack(chunk)[0] for chunk in run.chunks()]


def hashes(records: list[dict]) -> list[str]:
    return [own["hash"] for own in records[-1]["streams"].values()]


def test_lines_are_applied_at_their_chunks_and_told_as_they_were_written(scored):
    story = "2: a blue star\n\n3: A = forcing-kv:retention=0.7\n 3: B = sliding-window\n4: threshold = 0.25"
    records = play(scored, story)
    told = [[], ["a blue star"], ["A = forcing-kv:retention=0.7", "B = sliding-window"], ["threshold = 0.25"]]
    assert [record["events"] for record in records] == told
    assert [record["prompt"] for record in records] == ["a red ball", *["a blue star"] * 3]
    assert [record["streams"]["B"]["policy"] for record in records] == [
        "full",
        "full",
        "sliding-window",
        "sliding-window",
    ]
    assert hashes(records) != hashes(play(scored, ""))


def test_what_was_changed_by_hand_comes_back_from_what_the_run_told(scored):
    asked = {
        1: SetPrompt("a blue star", recache=True),
        2: SetPolicy("A", "sliding-window"),
        3: SetPrompt("A = b"),
    }
    records = play(scored, "", lambda run: run.count in asked and run.add_change(asked.pop(run.count)))
    story = "\n".join(f"{number}: {event}" for number, record in enumerate(records, 1) for event in record["events"])
    assert story == "2: re-cache = a blue star\n3: A = sliding-window\n4: prompt = A = b"
    assert hashes(play(scored, story)) == hashes(records)


def test_a_line_that_changes_nothing_is_not_told_and_leaves_the_frames_as_they_are(scored):
    for line in ("threshold = 0.5", "A = forcing-kv", "B = full", "a red ball"):
        records = play(scored, f"3: {line}")
        assert [record["events"] for record in records] == [[], [], [], []]
        assert hashes(records) == hashes(play(scored, ""))


def test_a_threshold_is_told_after_the_policy_that_needs_it(scored):
    asked = {1: [SetPolicy("A", "full")], 2: [SetPolicy("B", "forcing-kv"), SetThreshold(0.25)]}
    records = play(scored, "", lambda run: [run.add_change(each) for each in asked.pop(run.count, ())], length=3)
    assert records[2]["events"] == ["B = forcing-kv", "threshold = 0.25"]
    story = "2: A = full\n3: B = forcing-kv\n3: threshold = 0.25"
    assert hashes(play(scored, story, length=3)) == hashes(records)


PROMPTS = st.sampled_from(("a red ball", "a blue star"))
CHANGES = st.one_of(
    st.builds(SetPrompt, PROMPTS),
    st.builds(SetPrompt, PROMPTS, recache=st.just(True)),
    st.builds(SetPrompt, PROMPTS, cut=st.just(True)),
    st.builds(SetPolicy, st.sampled_from("AB"), st.sampled_from(("full", "sliding-window", "forcing-kv"))),
    st.builds(Flush),
    st.builds(SetSteps, st.integers(1, 2)),
    st.builds(SetThreshold, st.sampled_from((0.25, 0.5, 0.75))),
    st.builds(SilenceHead, st.sampled_from("AB"), st.tuples(st.integers(0, 2), st.integers(0, 3))),
    st.builds(from_scores(SCORES, 0.5).flipped, st.integers(0, 2), st.integers(0, 3)).map(SetRoles),
)


@given(st.lists(st.lists(CHANGES, max_size=4), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_any_run_comes_back_from_what_it_told(small, borders):
    scored = replace(small, roles=from_scores(SCORES, 0.5))
    waiting = dict(enumerate(borders, 1))
    records = play(scored, "", lambda run: [run.add_change(each) for each in waiting.pop(run.count, ())])
    story = "\n".join(f"{number}: {event}" for number, record in enumerate(records, 1) for event in record["events"])
    again = play(scored, story)
    assert hashes(again) == hashes(records), story
    assert [record["events"] for record in again] == [record["events"] for record in records]


def test_roles_that_no_threshold_gives_are_told_head_by_head(scored):
    flipped = at_threshold(scored.roles, 0.5).flipped(2, 3).flipped(0, 1)
    records = play(scored, "", lambda run: run.count == 1 and run.add_change(SetRoles(flipped)), length=3)
    assert records[1]["events"] == ["heads = 0.1 static, 2.3 dynamic"]
    again = play(scored, "2: heads = 2.3 dynamic, 0.1 static, 1.1 dynamic", length=3)
    assert hashes(again) == hashes(records)


@pytest.mark.parametrize("b", ["full", "per-step"])
def test_a_run_begins_with_the_steps_that_were_chosen(scored, b):
    records = play(scored, "3: a blue star", steps=1, length=3, b=b)
    assert [record["events"] for record in records] == [["steps = 1"], [], ["a blue star"]]
    assert hashes(records) == hashes(play(scored.with_steps(1), "3: a blue star", length=3, b=b))
    assert hashes(records) == hashes(play(scored, "1: steps = 1\n3: a blue star", length=3, b=b))


def test_recache_is_said_to_be_impossible_where_it_is(scored):
    run, texts = Run(1 << 20), []
    plan = Plan.from_form(
        prompt="a red ball",
        seed=5,
        length=3,
        view="AB",
        a="forcing-kv",
        b="recompute",
        story="2: re-cache = a blue star",
        roles=scored.roles,
    )
    for manifest in live(scored, plan, run, Queue(), Limits(lead=1e9)):
        texts.append(manifest["text"])
    assert any("B (recompute) went on without re-cache" in text for text in texts)
    assert unpack(run.chunks()[1])[0]["events"] == ["re-cache = a blue star"]


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ("2: a\nthen a star", "line 2 of the storyboard: 'then a star' should be written CHUNK:WHAT"),
        ("0: a star", "line 1.*from 1 to"),
        ("2: A = nonsense", "line 1.*no policy 'nonsense'"),
        ("2: threshold = high", "line 1.*'high' is not a number"),
        ("2: threshold = 7", "line 1.*from 0 to 1"),
        ("2: heads = 3.2 dynamic, 4 static", "line 1.*'4 static' should be LAYER.HEAD and its role"),
        ("2: forcing-kv", "line 1.*'forcing-kv' is a policy; write A = forcing-kv"),
        ("9: a star", "line 1.*chunk 9 comes after the last of 4"),
        ("2:   ", "line 1"),
    ],
)
def test_a_bad_line_is_named(story, words, scored):
    with pytest.raises(ValueError, match=words):
        parse(story, scored.roles, 4)


def test_a_threshold_needs_scores(small):
    with pytest.raises(ValueError, match="no scores"):
        parse("2: threshold = 0.5", small.roles)
    with pytest.raises(ValueError, match="no scores"):
        Plan.from_form(prompt="a red ball", seed=0, length=2, view="A", a="forcing-kv", b="full", threshold=0.5)


def test_a_plan_s_link_and_roles_carry_threshold_and_storyboard(scored):
    plan = Plan.from_form(
        prompt="a red ball",
        seed=5,
        length=4,
        view="A",
        a="forcing-kv",
        b="full",
        threshold=0.0,
        story="2: a blue star",
        roles=scored.roles,
    )
    assert "threshold=0.0" in plan.link and "story=2%3A+a+blue+star" in plan.link
    assert all(len(layer) == 4 for layer in plan.roles.static) and [cue.chunk for cue in plan.story.cues] == [1]


def test_scenes_on_the_page_begin_with_their_first_prompt_and_go_into_the_link_as_lines(scored):
    plan = Plan.from_form(
        prompt="a red ball",
        seed=5,
        length=20,
        view="A",
        a="forcing-kv",
        b="full",
        story="a blue star [4s] | a pink box [3c#]",
        chunk_seconds=0.75,
    )
    link = dict(parse_qsl(plan.link))
    assert plan.prompt == link["prompt"] == "a blue star" and plan.chunks == 20
    assert link["story"] == "7: cut = a pink box"
    again = Plan.from_form(**{name: link[name] for name in ("prompt", "view", "a", "b", "story")}, seed=5, length=20)
    assert again == replace(plan, texts=again.texts, story=plan.story.without_opening())


def test_a_cut_is_told_and_changes_no_frame_more_than_a_prompt_does(scored):
    cut = play(scored, "3: cut = a blue star")
    prompt = play(scored, "3: a blue star")
    assert [record["events"] for record in cut] == [[], [], ["cut = a blue star"], []]
    assert hashes(cut) == hashes(prompt) != hashes(play(scored, ""))


def test_a_flush_leaves_the_first_frame_and_the_two_newest_and_is_told(scored):
    records = play(scored, "3: flush", b="sliding-window")
    assert [record["events"] for record in records] == [[], [], ["flush"], []]
    newest = records[1]["frame"]
    for own in records[2]["streams"].values():
        for group in own["xray"]:
            cached = {frame for first, last, _, _ in group["runs"] for frame in range(first, last + 1)}
            assert {0, newest} <= {frame for frame in cached if frame <= newest} <= {0, newest - 1, newest}
    assert hashes(records) != hashes(play(scored, "", b="sliding-window"))


def test_a_cut_by_itself_begins_another_scene_where_the_policy_knows_cuts(scored):
    cut = play(scored, "3: cut", b="infinity-rope")
    whole = play(scored, "", b="infinity-rope")
    assert [record["events"] for record in cut] == [[], [], ["cut"], []]
    assert hashes(cut)[0] == hashes(whole)[0] and hashes(cut)[1] != hashes(whole)[1]


def test_a_new_prompt_with_a_cut_begins_another_scene_where_the_policy_knows_cuts(scored):
    cut = play(scored, "3: cut = a blue star", b="infinity-rope")
    both = play(scored, "3: cut\n3: a blue star", b="infinity-rope")
    prompt = play(scored, "3: a blue star", b="infinity-rope")
    assert cut[2]["events"] == ["cut = a blue star"] and sorted(both[2]["events"]) == ["a blue star", "cut"]
    assert hashes(cut) == hashes(both) != hashes(prompt)


@pytest.mark.parametrize(
    ("change", "b", "words"),
    [
        (SetPrompt("a blue star", cut=True), "infinity-rope", "A (full): this policy has no cut; the prompt changes"),
        (Cut(), "infinity-rope", "A (full) went on: this policy has no cut."),
        (Flush(), "recompute", "B (recompute) went on: there is no cache to flush."),
        (SetSteps(1), "per-step", "B (per-step) went on: there is a cache for each step."),
    ],
)
def test_streams_that_cannot_follow_a_change_are_named(change, b, words, small):
    streams = {"A": Stream(small, policies.parse("full"), "a"), "B": Stream(small, policies.parse(b), "a")}
    for stream in streams.values():
        stream.step()
    assert change.apply(streams).startswith(words)


@pytest.mark.parametrize(
    ("change", "policy", "words"),
    [(Cut(), "full", "no running policy has a cut; try"), (Flush(), "recompute", "recompute.* has no cache to flush")],
)
def test_a_change_that_no_stream_can_follow_is_refused(change, policy, words, small):
    with pytest.raises(ValueError, match=words):
        change.apply({"A": Stream(small, policies.parse(policy), "a")})


SCENES = "a red ball\n over the hills [10s] | the same ball, at night[9s#] |a pink box[4]| a green heart [ 2c # ]"


def test_scenes_and_lines_say_the_same():
    scenes = parse(SCENES, chunk_seconds=0.75)
    lines = "1: a red ball over the hills\n15: cut = the same ball, at night\n27: a pink box\n31: cut = a green heart"
    assert scenes == parse(lines) and write(scenes) == lines
    assert scenes.chunks == 14 + 12 + 4 + 2 and parse(lines).chunks is None
    assert scenes.opening == "a red ball over the hills" and scenes.changes(0) == []
    assert [cue.cut for cue in scenes.cues] == [False, True, False, True]


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ("a red ball [2s] | a star", "scene 2 of the storyboard: 'a star' should end with one duration, as in a red"),
        ("a red ball [10s] a star [2]", "scene 1.*should end with one duration"),
        ("a red ball [2s] |", "scene 2.*should end with one duration"),
        ("a red ball [2] | [2]", "scene 2.*the prompt is empty"),
        ("a red ball [1.5]", r"scene 1.*\[1.5\] is no whole number of chunks; write \[2\] or \[1.5s\]"),
        ("a red ball [0s]", "scene 1.*lasts at least"),
        ("a red ball [2#] | a star [2]", "scene 1.*leave out the #"),
        ("a red ball [99999999]", "scene 1.*100,000"),
        ("a red ball [4] | a star [2]", "scene 2.*begins at chunk 5, after the last of 4"),
        ("a red ball", "line 1.*or as scenes: a red ball"),
    ],
)
def test_a_bad_scene_is_named(story, words):
    with pytest.raises(ValueError, match=words):
        parse(story, chunks=4, chunk_seconds=0.75)


def test_seconds_need_a_frame_rate():
    with pytest.raises(ValueError, match="scene 1.*frame rate"):
        parse("a red ball [4s]")
    assert parse("a red ball [4]").chunks == 4


def test_a_storyboard_is_checked_before_there_is_a_model():
    check("a red ball [4s] | a star [2]")
    check("2: threshold = 0.7")
    with pytest.raises(ValueError, match="from 0 to 1"):
        check("2: threshold = 7")


def test_old_permalinks_mean_what_they_meant(scored):
    story = "6: a cyan star drifting over the sea at night\n12: A = sliding-window\n18: re-cache = a yellow box"
    assert parse(story).cues == (
        Cue(5, SetPrompt("a cyan star drifting over the sea at night")),
        Cue(11, SetPolicy("A", "sliding-window")),
        Cue(17, SetPrompt("a yellow box", recache=True)),
    )


def test_recache_is_added_to_every_prompt_but_cuts():
    lines = "2: a star\n3: cut = a ball\n4: threshold = 0.5"
    assert write(parse(lines, from_scores(SCORES)).with_recache()) == lines.replace("a star", "re-cache = a star")


PROMPTS = st.one_of(
    st.text(min_size=1),
    st.sampled_from(
        [
            "full",
            "A = b",
            "cut = x",
            "prompt = full",
            "flush",
            "cut",
            "7: a",
            "a [10s] | b [2]",
            "[10s#]",
            "threshold=x",
        ]
    ),
).filter(lambda text: not refused(check_prompt, text) and "".join(text.split()))
CHANGES = st.one_of(
    PROMPTS.map(SetPrompt),
    PROMPTS.map(lambda prompt: SetPrompt(prompt, recache=True)),
    PROMPTS.map(lambda prompt: SetPrompt(prompt, cut=True)),
    st.floats(0, 1).map(SetThreshold),
    st.integers(1, 99).map(SetSteps),
    st.sampled_from([Flush(), Cut()]),
    st.tuples(st.sampled_from("AB"), st.sampled_from(["full", "forcing-kv:retention=0.5", "full without 3.2"])).map(
        lambda pair: SetPolicy(*pair)
    ),
)


def refused(function, *args) -> bool:
    try:
        function(*args)
    except ValueError:
        return True
    return False


@settings(deadline=None)
@given(st.lists(st.builds(Cue, st.integers(0, 99_999), CHANGES)))
def test_what_is_written_is_read_back(cues):
    story = Storyboard().with_cues(cues)
    once = parse(write(story), from_scores(SCORES))
    assert [cue.chunk for cue in once.cues] == [cue.chunk for cue in story.cues]
    assert [tidy(cue.change) for cue in story.cues] == [cue.change for cue in once.cues]
    assert write(once) == write(story)


def tidy(change):
    """A prompt has one line: its white space is that of words."""
    return replace(change, prompt=" ".join(change.prompt.split())) if isinstance(change, SetPrompt) else change


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab ", min_size=1).filter(str.strip), st.integers(1, 50), st.booleans()), min_size=1))
def test_scenes_of_whole_chunks_come_back_as_lines(scenes):
    text = "|".join(f"{prompt}[{length}{'#' * (cut and at > 0)}]" for at, (prompt, length, cut) in enumerate(scenes))
    story = parse(text)
    assert story.chunks == sum(length for _, length, _ in scenes) and parse(write(story)) == story


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        parse(text, from_scores(SCORES), chunk_seconds=0.75)
    except ValueError as error:
        assert " of the storyboard: " in str(error)
