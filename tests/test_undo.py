"""Undo on Live: the last change of a run is taken back, in the stream and in the settings that the form shows."""

from __future__ import annotations

import pytest

from fkv import storyboard
from fkv.storyboard import Cut, Flush, SetHeads, SetPolicy, SetPrompt, SetRoles, SetSteps, SetThreshold, SilenceHead
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.undo import MOST_UNDONE, History, Settings
from fkv.studio.media.protocol import unpack

PROMPT = "a red ball over the sea"
POLICY = "forcing-kv:segments_per_frame=4"


def plan_of(length: int, **fields: object) -> Plan:
    form = {"prompt": PROMPT, "seed": 1, "length": length, "view": "AB", "a": POLICY, "b": "full"}
    return Plan.from_form(**form | fields)


CHANGES = {
    "prompt": (SetPrompt("a blue star"), [SetPrompt(PROMPT)]),
    "policy": (SetPolicy("B", "sliding-window"), [SetPolicy("B", "full")]),
    "silenced": (SilenceHead("A", (1, 2)), [SetPolicy("A", POLICY)]),
    "steps": (SetSteps(1), [SetSteps(2)]),
    "flush": (Flush(), []),
    "cut": (Cut(), []),
    "the same policy": (SetPolicy("B", "full"), []),
    "no policy": (SetPolicy("B", "nonsense"), []),
    "no prompt": (SetPrompt(" "), []),
    "another run's stream": (SetPolicy("C", "full"), []),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_taken_back_by_what_held_before(case, small):
    change, expected = CHANGES[case]
    history = History(Settings.of(plan_of(3), small))
    before = history.now
    history.note(change)
    assert history.undo() == expected and history.now == before and history.undo() == []


def test_only_the_last_changes_of_a_long_run_are_kept(small):
    history = History(Settings.of(plan_of(3), small))
    for number in range(MOST_UNDONE + 9):
        history.note(SetPrompt(f"{number} blue stars"))
    for number in reversed(range(8, MOST_UNDONE + 8)):
        assert history.undo() == [SetPrompt(f"{number} blue stars")]
    assert history.undo() == []


def test_roles_are_taken_back_however_they_were_changed(shipped):
    history = History(Settings.of(plan_of(3), shipped))
    released = history.now.roles
    head = (1, released.static[1][0])
    flip = SetHeads(((head, "dynamic"),))
    for change in (SetThreshold(0.5), flip, SetRoles(storyboard.at_threshold(released, 0.3))):
        history.note(change)
    assert len({id(history.now.roles), id(released)}) == 2
    [first] = history.undo()
    assert first.roles == flip.of(storyboard.at_threshold(released, 0.5))
    history.undo()
    assert history.undo() == [SetRoles(released)] and history.now.roles == released


def test_a_run_follows_an_undo_with_a_mark_and_earlier_changes_stay(small):
    plan = plan_of(5, story="2: a blue star")
    run = Run(1 << 24)
    run.history = History(Settings.of(plan, small))
    for manifest in live(small, plan, run, Queue(), Limits(lead=1e9)):
        if manifest["state"] == "live" and run.count == 2:
            run.add_change(SetPolicy("B", "sliding-window"))
            run.add_change(SetSteps(1))
        if manifest["state"] == "live" and run.count == 3:
            assert run.undo()
    records = [unpack(chunk)[0] for chunk in run.chunks()]
    assert [record["events"] for record in records] == [
        [],
        ["a blue star"],
        ["steps = 1", "B = sliding-window"],
        ["steps = 2"],
        [],
    ]
    assert run.history.now.policies == {"A": POLICY, "B": "sliding-window"} and run.history.now.prompt == "a blue star"
    assert run.undo() and run.undo() and not run.undo()


def test_a_change_that_still_waits_is_taken_back_without_a_trace(small):
    plan = plan_of(3)
    run = Run(1 << 24)
    run.history = History(Settings.of(plan, small))
    for manifest in live(small, plan, run, Queue(), Limits(lead=1e9)):
        if manifest["state"] == "live" and run.count == 1 and run.history.now.prompt == PROMPT:
            run.add_change(SetPolicy("B", "sliding-window"))
            run.add_change(SetPrompt("a blue star"))
            assert run.undo() and run.undo()
    records = [unpack(chunk)[0] for chunk in run.chunks()]
    assert [record["events"] for record in records] == [[], [], []]
