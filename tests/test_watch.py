"""Watching heads: the record says what the probe saw, the pictures stay the same, and nobody watching costs nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fkv.policies import POLICIES, ForcingKV, Full, PerStep
from fkv.policies.mpcache import MPCache
from fkv.probe import Focus, FrameMassProbe, head_scores
from fkv.roles import HeadRoles, from_scores
from fkv.storyboard import SetRoles
from fkv.stream import Stream
from fkv.studio.live.attention_probe import GONE, UNIT, Watch, frame_kinds, profiled, step
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.media.protocol import unpack

PROMPT = "a red ball"
FOCUS = Focus(1, 2, 1, 4)


def streams(small, *policies, roles=None) -> dict[str, Stream]:
    return {name: Stream(small, policy, PROMPT, 5, roles) for name, policy in zip("AB", policies, strict=False)}


def records(run: Run) -> list[dict]:
    return [unpack(chunk)[0] for chunk in run.chunks()]


def go(small, act=lambda run: None, length=4, watch=None) -> list[dict]:
    """Run forcing-kv and full side by side, calling `act` after every chunk, and return the records of all chunks."""
    run = Run(1 << 22)
    run.watch = watch
    plan = Plan.from_form(
        prompt=PROMPT, seed=5, length=length, view="AB", a="forcing-kv:segments_per_frame=2", b="full"
    )
    for manifest in live(small, plan, run, Queue(), Limits(lead=1e9)):
        assert manifest["state"] != "error", manifest["text"]
        act(run)
    return records(run)


@pytest.mark.parametrize("policy", [ForcingKV(segments_per_frame=2), Full()])
def test_a_record_says_what_the_probe_saw(small, policy):
    watched, plain = streams(small, policy), Stream(small, policy, PROMPT, 5)
    for _ in range(4):
        probe = FrameMassProbe(passes={"context"}, focus=FOCUS)
        made, told = step(watched, "A", Watch("A", FOCUS))
        chunk = plain.step(probe)
    truth, seen = probe.take()[0], told["A"]["heads"]
    assert seen["key_frames"] == list(truth.key_frames) and seen["frames"] == list(chunk.frames)
    mass = np.array(seen["mass"])
    held = np.broadcast_to(truth.mass.sum(-2, keepdims=True) > 0, mass.shape)
    assert ((mass == GONE) == ~held).all()
    np.testing.assert_allclose(mass[held] / UNIT, truth.mass[held], atol=0.6 / UNIT)
    for layer, groups in enumerate(seen["groups"]):
        for head, group in enumerate(groups):
            dropped = np.array(seen["kinds"][group]) == "dropped"
            np.testing.assert_array_equal(dropped, (mass[layer, head] == GONE).all(0))
    scores = np.array(seen["scores"], float)
    known = ~np.isnan(scores)
    assert known.all() if policy.name == "full" else known[1, 0] and not known[1, 1]
    np.testing.assert_allclose(scores[known], head_scores(truth.mass)[known], atol=1e-4)
    maps = dict(seen["maps"])
    assert list(maps) == list(truth.maps)
    for frame, patches in truth.maps.items():
        np.testing.assert_allclose(
            np.where(np.isnan(patches), GONE, np.nan_to_num(patches) * UNIT), maps[frame], atol=0.6
        )


def test_watching_leaves_the_pictures_as_they_are(small):
    watched, unwatched = go(small, watch=Watch("A", FOCUS)), go(small)
    assert [{name: own["hash"] for name, own in each["streams"].items()} for each in watched] == [
        {name: own["hash"] for name, own in each["streams"].items()} for each in unwatched
    ]
    assert all(each["heads"]["focus"] == vars(FOCUS) for each in watched) and not any(
        "heads" in each for each in unwatched
    )


def test_nobody_watching_means_no_probe(small, monkeypatch):
    probes, real = [], Stream.step
    monkeypatch.setattr(Stream, "step", lambda self, probe=None: probes.append(probe) or real(self, probe))
    pair = streams(small, Full(), Full())
    assert step(pair, "AB", None)[1] == step(pair, "BA", Watch("C", FOCUS))[1] == {}
    assert probes == [None] * 4
    step(pair, "AB", Watch("B", FOCUS))
    assert probes[4] is None and isinstance(probes[5], FrameMassProbe)


def test_the_same_head_can_be_watched_in_both_streams(small):
    both, alone = go(small, watch=Watch("B", FOCUS, beside=True)), go(small, watch=Watch("A", FOCUS))
    assert all((each["heads"]["stream"], each["beside"]["stream"]) == ("B", "A") for each in both)
    assert [each["beside"] for each in both] == [each["heads"] for each in alone]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_watched(small, name):
    policy = POLICIES[name]()
    policy = replace(policy, segments_per_frame=2) if isinstance(policy, ForcingKV) else policy
    own = streams(small, policy)
    for _ in range(3):
        seen = step(own, "A", Watch("A", FOCUS))[1]["A"]["heads"]
    assert seen["pass"] == ("step 1" if isinstance(policy, PerStep) else "context") and len(seen["maps"]) >= 3


def test_the_overlap_of_choices_is_told_where_heads_choose(small):
    own = streams(small, MPCache(segments_per_frame=4, threshold=0, first_layers=1), Full())
    for _ in range(6):
        _, seen = step(own, "AB", Watch("A", FOCUS, beside=True))
    chosen, full = seen["A"]["heads"], seen["B"]["beside"]
    overlap = chosen["overlap"]
    assert overlap["passes"] == ["step 0", "step 1", "context"] and full["overlap"] is None
    assert overlap["layers"][1][2] == 1 > overlap["layers"][0][1] > 0 and overlap["steps"] == [[1] * 3] * 3


def test_the_first_chunk_has_no_scores(small):
    seen = step(streams(small, Full()), "A", Watch("A", FOCUS))[1]["A"]["heads"]
    assert seen["scores"] == [[None] * 4] * 3 and seen["mass"]


def test_costs_of_a_role_are_exact(small):
    """In a steady stream the KV bytes are the sum of what the heads cost, and those of other roles can be foretold."""
    policy = ForcingKV(segments_per_frame=2)

    def steady(roles: HeadRoles) -> tuple[int, dict]:
        own = streams(small, policy, roles=roles)
        for _ in range(5):
            made, seen = step(own, "A", Watch("A", FOCUS))
        return made["A"].kv_bytes, seen["A"]["heads"]["cost"]

    def total(roles: HeadRoles, cost: dict) -> int:
        return sum(
            cost["static" if static else "dynamic"][layer]
            for layer, row in enumerate(roles.is_static())
            for static in row
        )

    now, other = small.roles, HeadRoles(4, ((0,), (3,), ()))
    held, cost = steady(now)
    assert (
        total(now, cost) == held and cost["static"][0] == cost["dynamic"][0] and cost["static"][1] < cost["dynamic"][1]
    )
    assert total(other, cost) == steady(other)[0] != held
    assert step(streams(small, Full()), "A", Watch("A", FOCUS))[1]["A"]["heads"]["cost"] is None


def test_changed_roles_show_in_a_later_chunk(small):
    flipped = small.roles.flipped(1, 1)
    made = go(small, lambda run: run.add_change(SetRoles(flipped)) if run.count == 4 else None, 7, Watch("A", FOCUS))
    assert [each["events"] for each in made] == [[]] * 4 + [["heads = 1.1 dynamic"], [], []]
    assert [each["heads"]["static"][1] for each in made] == [[1, 2]] * 4 + [[2]] * 3
    before, after = (each["heads"]["mass"][1][1][0] for each in (made[3], made[6]))
    assert before.count(GONE) > 0 and after.count(GONE) == 0


def test_roles_are_refused_where_no_policy_goes_by_them(small):
    with pytest.raises(ValueError, match="no running policy uses head roles"):
        SetRoles(small.roles).apply(streams(small, Full()))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((9, 0, 0, 0), "no head 0 in layer 9"),
        ((0, 0, 2, 0), "no patch at row 2"),
        ((0, "1", 0, 0), "whole numbers"),
        ((None,) * 4, "whole numbers"),
    ],
)
def test_bad_requests_get_a_sentence(small, asked, words):
    with pytest.raises(ValueError, match=words):
        Watch.of("A", *asked, streams(small, Full())["A"].geometry)


def test_what_differs_in_words(small):
    assert small.roles.changes(small.roles) == "0 heads changed"
    assert small.roles.flipped(0, 3).flipped(2, 0).changes(small.roles) == "0.3 static, 2.0 dynamic"
    assert HeadRoles(4, ((), (), ())).changes(small.roles).count("dynamic") == 5


def test_what_a_profile_saw_has_the_form_of_a_record():
    mass = np.random.default_rng(0).dirichlet(np.ones(9), (2, 3, 3)).round(4)
    roles = from_scores(
        np.ones((2, 3)), attention={"frames": [6, 7, 8], "key_frames": list(range(9)), "mass": mass.tolist()}
    )
    found = profiled(roles)
    assert found["kinds"] == {"all": ["sink", *["kept"] * 4, "anchor", *["current"] * 3]}
    assert found["groups"] == [["all"] * 3] * 2 and found["frames"] == [6, 7, 8]
    np.testing.assert_allclose(np.array(found["mass"]) / UNIT, mass)
    assert profiled(None) is None and profiled(HeadRoles(3, ((0,),))) is None


def test_a_frame_is_held_where_none_of_its_segments_were_read():
    pages = SimpleNamespace(frame=np.array([0, 0, 1, 1]))
    chunk = SimpleNamespace(pages={"all": pages}, kinds={"all": ["recalled", "held", "held", "held"]})
    assert frame_kinds(chunk, [0, 1, 2]) == {"all": ["recalled", "held", "dropped"]}
