"""Storyboards: what a line asks for, what a run tells of itself, and that the one brings the other back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fkv.models.base import VideoModel
from fkv.roles import from_scores
from fkv.storyboard import SetPolicy, SetPrompt, SetRoles, at_threshold, parse
from fkv.studio.live.live import Plan, live
from fkv.studio.live.sessions import Limits, Queue, Run
from fkv.studio.media.protocol import unpack

SCORES = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.fixture
def scored(small) -> VideoModel:
    return replace(small, roles=from_scores(SCORES, 0.5))


def play(model: VideoModel, story: str, act=lambda run: None, length: int = 4, b: str = "full") -> list[dict]:
    """The records of a run with this storyboard; `act` is called before each chunk."""
    run = Run(1 << 20)
    plan = Plan.from_form(
        prompt="a red ball", seed=5, length=length, view="AB", a="forcing-kv", b=b, story=story, roles=model.roles
    )
    for manifest in live(model, plan, run, Queue(), Limits(lead=1e9)):
        assert manifest["state"] != "error", manifest["text"]
        act(run)
    return [unpack(run.get(number))[0] for number in range(run.count)]


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
    records = play(scored, "", lambda run: run.count in asked and run.ask(asked.pop(run.count)))
    story = "\n".join(f"{number}: {event}" for number, record in enumerate(records, 1) for event in record["events"])
    assert story == "2: re-cache = a blue star\n3: A = sliding-window\n4: prompt = A = b"
    assert hashes(play(scored, story)) == hashes(records)


def test_roles_that_no_threshold_gives_are_told_but_are_no_line(scored):
    flipped = at_threshold(scored.roles, 0.5).flipped(2, 3)
    records = play(scored, "", lambda run: run.count == 1 and run.ask(SetRoles(flipped)), length=2)
    assert records[1]["events"] == ["roles: 2.3 dynamic"]


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
    assert unpack(run.get(1))[0]["events"] == ["re-cache = a blue star"]


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ("2: a\nthen a star", "line 2 of the storyboard: 'then a star' should be written CHUNK:WHAT"),
        ("0: a star", "line 1.*from 1 to"),
        ("2: A = nonsense", "line 1.*no policy 'nonsense'"),
        ("2: threshold = high", "line 1.*'high' is not a number"),
        ("2: threshold = 7", "line 1.*from 0 to 1"),
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
    assert all(len(layer) == 4 for layer in plan.roles.static) and [cue.chunk for cue in plan.cues] == [1]
