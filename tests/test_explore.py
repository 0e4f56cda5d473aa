"""The Explore tab without a browser: trees that a search or a visitor grows, and what goes on live from them."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from fkv.search.head import Foresight, Head
from fkv.search.looks import weights_of
from fkv.search.moves import Moves
from fkv.search.tree import Node
from fkv.storyboard import Storyboard
from fkv.studio.live.explore_plan import BY_HAND, ExplorePlan
from fkv.studio.live.exploring import NOT_CHOSEN, explore
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.protocol import unpack

PROMPT = "a red ball bouncing over the sea by day"
FORM = {
    "prompt": PROMPT,
    "seed": 3,
    "policy": "full",
    "strategy": "beam",
    "chunks": 3,
    "width": 4,
    "lookahead": 1,
    "passes": 60,
    "rewards": "continuity",
    "moves": ["noise"],
    "story": "2: re-cache = a blue star drifting over the sea by day",
}
PATIENT = Limits(lead=1e9)


@pytest.fixture(scope="module")
def toy(small):
    return replace(small, latent=(4, 12, 20))


def explored(model, run, limits=PATIENT, **fields):
    return explore(model, ExplorePlan.from_form(model, **FORM | fields), run, Queue(), limits)


def lineage(nodes, number):
    path = []
    while number >= 0:
        path.insert(0, number)
        number = nodes[number]["parent"]
    return path


@pytest.fixture(scope="module")
def found(toy):
    """A finished search: its run and last manifest."""
    run = Run(1 << 26)
    *_, last = explored(toy, run)
    return run, last


def test_a_search_tells_of_every_node_and_serves_its_frames(found):
    run, last = found
    nodes = last["nodes"]
    assert (last["state"], run.ended) == ("done", "finished") and last["text"].startswith(
        "Finished: 12 chunks, 40 of 60"
    )
    assert [node["depth"] for node in nodes] == [1] * 4 + [2] * 4 + [3] * 4 and run.count == 12
    assert sum(node["decided"] for node in nodes) == 3
    left = [node["why"] for node in nodes if node["why"]]
    assert left and {
        "not among the best of its depth",
        "not on the path of the best leaf when its chunk was decided",
    } >= {*left}
    assert all(node["bytes"] > 0 and 0 <= node["reward"] <= 1 for node in nodes)
    record, jpegs = unpack(run.get(7))
    assert record == {"node": 7} and len(jpegs) == 12


def test_a_future_goes_on_live_with_the_frames_that_were_shown(toy, found):
    run, last = found
    nodes = last["nodes"]
    path = lineage(nodes, next(number for number in reversed(range(12)) if nodes[number]["noise"]))
    story = "\n".join(f"{at}: {line}" for at, number in enumerate(path, 1) for line in nodes[number]["changes"])
    noises = ",".join(str(nodes[number]["noise"]) for number in path)
    plan = Plan.from_form(prompt=PROMPT, seed=3, length=3, view="A", a="full", b="full", story=story, path=noises)
    assert f"path={noises.replace(',', '%2C')}" in plan.link
    streamed = Run(1 << 26)
    list(live(toy, plan, streamed, Queue(), PATIENT))
    again = [unpack(data)[1] for data in streamed.chunks()]
    shown = [unpack(run.get(number))[1] for number in path]
    assert [len(frames) for frames in again] == [12] * 3
    assert again[0] == shown[0], "nothing was shared yet, so the first chunk is equal to the bit"
    plain = Run(1 << 26)
    list(live(toy, replace(plan, path=()), plain, Queue(), PATIENT))
    assert [unpack(data)[1] for data in plain.chunks()] != again


def test_by_hand_four_futures_wait_for_a_choice_and_the_others_are_left(toy):
    run = Run(1 << 26)
    chosen = []
    for manifest in explored(toy, run, strategy=BY_HAND, chunks=6, passes=200):
        if manifest["state"] == "choose":
            assert len(manifest["options"]) == 4 and run.paused and manifest["span"] == 3
            assert (
                len({manifest["nodes"][lineage(manifest["nodes"], each)[-3]]["noise"] for each in manifest["options"]})
                == 4
            )
            chosen.append(manifest["options"][2])
            run.choose(2)
    nodes = manifest["nodes"]
    assert manifest["state"] == "done" and run.ended == "finished" and len(nodes) == 24 and len(chosen) == 2
    assert chosen[0] in lineage(nodes, chosen[1]) and [node["decided"] for node in nodes].count(True) == 6
    assert [node["why"] for node in nodes].count(NOT_CHOSEN) == 6


def test_by_hand_says_when_the_passes_left_are_too_few(toy):
    run = Run(1 << 26)
    for manifest in explored(toy, run, strategy=BY_HAND, chunks=6, passes=50):
        if manifest["state"] == "choose":
            run.choose(0)
    assert manifest["text"].startswith("Ended: the passes left do not pay for another choice; 3 chunks chosen")


def test_ets_shows_the_clusters_by_which_it_decides(toy):
    for distance, groups in [("0", 4), ("2", 1)]:
        *_, last = explored(toy, Run(1 << 26), strategy=f"ets:distance={distance}", chunks=1, lookahead=0, story="")
        assert len({node["cluster"] for node in last["nodes"]}) == groups


def test_by_hand_ends_when_it_is_stopped_or_nobody_chooses(toy):
    run = Run(1 << 26)
    for manifest in explored(toy, run, strategy=BY_HAND, passes=200):
        if manifest["state"] == "choose":
            run.stop()
    assert run.ended == "stopped" and manifest["text"].startswith("Stopped after 12 chunks")
    run = Run(1 << 26)
    *_, last = explored(toy, run, replace(PATIENT, pause=0.0), strategy=BY_HAND, passes=200)
    assert run.ended == "pause limit" and "a pause may last" in last["text"]


def test_who_leaves_the_queue_generates_nothing_and_counts_as_no_turn(toy):
    queue, run = Queue(), Run(1 << 26)
    with queue.join("another"), closing(explore(toy, ExplorePlan.from_form(toy, **FORM), run, queue, PATIENT)) as told:
        assert next(told)["state"] == "queued"
        run.stop()
        *_, last = told
    assert (last["state"], last["nodes"], run.ended) == ("done", [], "stopped")
    assert queue.expected(1, longest=180)[0] == "at most", "no turn has ended"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"strategy": "saffron"}, "small comes without one; train one with fkv search --learn"),
        ({"strategy": "ets"}, "nobody measured it; measure it with fkv search --calibrate FILE"),
        ({"strategy": "bem"}, "there is no strategy 'bem'"),
        ({"chunks": 0}, "the number of chunks must be a whole number from 1 to 40"),
        ({"width": 99}, "the number of futures side by side must be a whole number from 1 to 16"),
        ({"passes": 1e9}, "the number of passes must be"),
        ({"rewards": "this:s"}, "there is no reward 'this:s'"),
        ({"rewards": "sharp"}, "there is no reward 'sharp'"),
        ({"rewards": "wish:left@3"}, "left@3 is wished after the end: the video has 2.25 seconds"),
        ({"moves": []}, "choose a move"),
        ({"story": "9: a blue star"}, "comes after the last of 3"),
        ({"prompt": ""}, "the prompt is empty"),
    ],
)
def test_what_cannot_be_explored_is_said_in_words(toy, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        explored(toy, Run(0), **fields)


def test_a_reward_that_a_visitor_names_imports_no_module(toy):
    with pytest.raises(ValueError):
        explored(toy, Run(0), rewards="this:s")
    assert "this" not in sys.modules


def test_too_few_passes_are_said_in_words(toy):
    for fields, sentence in [
        ({"passes": 5}, "5 passes are not enough for one stream"),
        ({"passes": 5, "strategy": BY_HAND}, "5 passes are not enough for 4 futures"),
    ]:
        *_, last = explored(toy, Run(1 << 20), **fields)
        assert last["state"] == "error" and sentence in last["text"]


def test_saffron_shows_what_its_head_predicts_as_predicted(toy, monkeypatch):
    moves = Moves(Storyboard(), ("code",), PROMPT, "full", chunks=3)
    known = [move.key for move in moves.of([], 4)]
    facts = weights_of(toy) | {"rewards": "continuity"}
    head = Head(known, len(Foresight(toy, moves).state(Node())), facts)
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.linspace(0.2, 0.8, len(known)))
    monkeypatch.setattr(Head, "beside", lambda model: head)
    *_, last = explored(toy, Run(1 << 26), strategy="saffron", width=2, story="")
    nodes = last["nodes"]
    assert "which was not measured" in last["text"] and all(node["predicted"] and not node["parts"] for node in nodes)
    assert [node["move"] for node in nodes[:2]] == known[:1:-1] and nodes[0]["reward"] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="the head knows none of the moves steps"):
        explored(toy, Run(0), strategy="saffron", moves=["steps"])
    with pytest.raises(ValueError, match="predicts continuity; write that under Rewards"):
        explored(toy, Run(0), strategy="saffron", rewards="adherence")
