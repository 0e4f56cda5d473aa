"""The Live tab without a browser: what its handlers put on the page, and what a refused run leaves as it is."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlencode

import gradio as gr
import numpy as np
import pytest

from fkv.studio.live.limits import Limits
from fkv.studio.live.sessions import Registry
from fkv.studio.media.mp4 import Encoding
from fkv.studio.media.protocol import pack
from fkv.studio.tabs.explore import Handlers
from fkv.studio.tabs.live.link import Links
from fkv.studio.tabs.live.prompt import buttons_in
from fkv.studio.tabs.live.recording import NO_RECORDING
from fkv.studio.tabs.live.runs import Runs
from fkv.studio.tabs.live.tab import live_tab

SKIPPED = gr.skip()
REQUEST = SimpleNamespace(session_hash="visitor")


class Tab:
    """A Live tab, the handlers of its runs, and its form with an endless run of one stream."""

    def __init__(self, model):
        self.registry = Registry(Limits(lead=1e9))
        with gr.Blocks() as page:
            self.controls = live_tab(page, model, self.registry)
        self.runs = Runs(model, self.registry, self.controls)
        parts = [*self.controls.form, self.controls.policies.recache]
        fields = {self.controls.prompt.text: "a red ball", self.controls.next_run.view: "A"}
        self.form = {part: part.value for part in parts} | fields | {self.controls.next_run.length: 0}

    def start(self, **policies):
        fields = {self.controls.policies.fields[name]: policy for name, policy in policies.items()}
        return closing(self.runs.start(self.form | fields, REQUEST))

    def branch(self, **policies):
        past = {"prompt": "a red ball", "seed": self.form[self.controls.next_run.seed], "a": "full", "b": "full"}
        event = gr.EventData(None, {"query": urlencode(past), "chunk": 1, "prompt": "a red ball"})
        fields = {self.controls.policies.fields[name]: policy for name, policy in policies.items()}
        return closing(self.runs.branch(self.form | fields, event, REQUEST))


@pytest.fixture
def tab(small):
    return Tab(small)


def until(shown, state):
    return next(each for each in shown if each[0]["state"] == state)


def test_what_is_refused_leaves_the_buttons_the_form_and_the_recording_of_the_run_that_goes_on(tab):
    with tab.start(A="full") as shown:
        until(shown, "live")
        for refused in (tab.start(A="nonsense"), tab.branch(B="nonsense"), tab.branch(B="full")):
            with refused as answers:
                [(first, *rest)] = answers
            assert first["state"] == "error" and rest == [SKIPPED] * len(rest)
        tab.runs.stop(REQUEST)
        *_, (last, *buttons, _) = shown
    assert last["state"] == "done" and not buttons[-1].interactive
    with tab.start(A="nonsense") as refused:
        [(first, *buttons, download)] = refused
    assert first["state"] == "error" and buttons[0].value == "Go live" and download == SKIPPED


def test_the_end_of_a_run_leaves_the_buttons_of_the_one_that_took_its_place(tab):
    with tab.start(A="full") as first, tab.start(A="full") as second:
        until(first, "live")
        assert until(second, "queued")[-2].interactive
        *_, (last, *rest) = first
        assert last["state"] == "done" and rest == [SKIPPED] * len(rest)


def test_a_recording_is_withdrawn_when_a_run_begins_also_by_enter(tab):
    with closing(tab.runs.enter(tab.form, REQUEST)) as shown:
        assert next(shown)[-1].value is None and next(shown)[-1] == SKIPPED


def test_nothing_is_recorded_before_all_streams_have_a_chunk(tab):
    run = tab.registry.begin("visitor")
    streams = {"A": {"video_frames": 1}}
    run.put(pack({"streams": streams, "later": ["B"]}, [np.zeros((1, 8, 8, 3), np.uint8)]))
    [said] = tab.controls.recording._record(False, REQUEST)
    assert said.value != NO_RECORDING and said.label == "Nothing to record yet" and not said.interactive


def test_a_recording_that_is_being_made_ends_when_another_run_begins(tab, monkeypatch):
    def made() -> list:
        tab.registry.begin("visitor").put(pack(record, [np.zeros((1, 8, 8, 3), np.uint8)]))
        return list(tab.controls.recording._record(True, REQUEST))

    def wait(encoding, seconds: float) -> bool:
        tab.registry.begin("visitor")
        return finished(encoding, 60)

    record = {"index": 0, "streams": {"A": {"video_frames": 1, "policy": "full", "hash": "0" * 16}}}
    assert made()[-1].interactive
    finished = Encoding.wait
    monkeypatch.setattr(Encoding, "wait", wait)
    assert made() == [], "the button is the new run's"


def test_a_prompt_can_be_changed_in_the_queue():
    assert [button.interactive for button in buttons_in("queued")[1:]] == [True, *[False] * 4, True]


def test_an_undo_leaves_what_is_being_typed_in_other_fields(tab):
    with tab.start(A="full") as shown:
        until(shown, "live")
        tab.runs.change_prompt("a blue star", False, REQUEST)
        tab.controls.policies._change_policy_of("A")("sliding-window", REQUEST)
        assert tab.runs.undo(REQUEST)[1:] == [SKIPPED, "full", *[SKIPPED] * 3]
        assert tab.runs.undo(REQUEST)[1:] == ["a red ball", *[SKIPPED] * 4]
        assert tab.runs.undo(REQUEST)[1:] == [SKIPPED] * 5


@pytest.mark.parametrize("recorded", [{}, {"run": "recorded"}])
def test_a_link_promises_a_recording_only_where_there_is_one(recorded, small):
    for query in ({"prompt": "a red ball", "seed": "x"}, {"seed": "x"}):
        stage = Links(small, recorded).restore(SimpleNamespace(query_params=query))[0]
        assert ("sample recording" in stage["text"]) == bool(recorded) and "Not read" in stage["text"]


def test_a_link_hides_nothing_that_it_sets(shipped, tab):
    policies = tab.controls.policies
    query = {"schedule": "1000,500", "frames": "2", "threshold": "0.9"}
    places = [tab.controls.form.index(field) + 2 for field in (policies.timesteps, policies.frames)]
    for asked, expected in ((query, ["1000,500", 2]), ({}, [SKIPPED, SKIPPED])):
        fields = Links(shipped, {}).restore(SimpleNamespace(query_params=asked))
        found = [fields[place] for place in places]
        assert [getattr(field, "value", field) for field in found] == expected
        assert all(field.visible for field in found if field != SKIPPED)


def test_a_future_goes_on_with_the_split_with_which_it_was_generated(shipped, tab):
    event = gr.EventData(None, {"prompt": "a red ball", "seed": 1, "policy": "forcing-kv"})
    threshold = tab.controls.policies.threshold
    assert Handlers(shipped, tab.registry, None, tab.controls).go_on(40, event)[threshold] == shipped.profile_threshold
    event._data["noises"] = "0,3,1"
    lengths = {length: Handlers(shipped, tab.registry, None, tab.controls).go_on(length, event) for length in (0, 2, 9)}
    field = tab.controls.next_run.length
    assert [lengths[length][field] for length in (0, 2, 9)] == [SKIPPED, 3, SKIPPED], "all of the future is run"
    without = replace(shipped, roles=None)
    assert Handlers(without, tab.registry, None, tab.controls).go_on(40, event)[threshold] == SKIPPED
