"""A visitor's debate: what the director is told of a run, how it ends, and when its scenes play."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import gradio as gr
import pytest

from fkv.debate.director import Direction, direct
from fkv.debate.endpoint import Endpoint
from fkv.debate.scenes import Brief, cues
from fkv.debate.transcript import Event
from fkv.studio.live.attention_probe import Steps
from fkv.studio.live.directing import debate, told_of
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.loop import generate
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.media.protocol import unpack
from fkv.studio.tabs.director import Handlers

HILLS = "a red ball bouncing over the hills at sunset"
SEA = "a blue star drifting over the sea at night"
SCENES = f"{HILLS} [2] | {SEA} [2]"
BRIEF = Brief("a red ball", scenes=2)


def grammar(brief: Brief, seen: Callable[[Event], None]) -> Direction:
    return direct(brief, seen=seen)


def down(brief: Brief, seen: Callable[[Event], None]) -> Direction:
    return direct(brief, Endpoint("http://127.0.0.1:9/v1", "talker", 1.0), seen=seen)


def hold(small, how, run: Run | None = None, limits: Limits | None = None) -> list:
    return list(debate(small, BRIEF, how, run or Run(0), Queue(), limits or Limits()))


def test_a_debate_is_told_event_by_event(small):
    steps = hold(small, grammar)
    assert [len(step.events) for step in steps[:-1]] == list(range(1, len(steps)))
    last = steps[-1]
    assert last.state == "done" and last.direction and last.events == tuple(last.direction.transcript.events)
    assert "computed, not run" in last.text and f"{last.direction.transcript.tokens:,} tokens" in last.text


def test_a_language_model_that_is_down_is_told_in_a_sentence(small):
    last = hold(small, down)[-1]
    assert (last.state, last.text) == ("error", "No scenes: the language model cannot be reached. The stream goes on.")


def test_a_debate_that_is_stopped_does_not_wait_for_the_answer_that_is_out(small):
    release, run = threading.Event(), Run(0)

    def never(brief: Brief, seen: Callable[[Event], None]) -> Direction:
        release.wait(30)
        raise AssertionError

    steps = debate(small, BRIEF, never, run, Queue(), Limits())
    began = time.monotonic()
    next(steps)
    run.stop()
    [last] = steps
    assert last.state == "error" and time.monotonic() - began < 10
    assert re.fullmatch(r"Stopped after \d+ seconds?\.", last.text), "a debate has no chunks"
    assert run.ended == "stopped"
    release.set()


def test_a_debate_that_fails_unexpectedly_ends_in_a_sentence(small):
    def fails(brief: Brief, seen: Callable[[Event], None]) -> Direction:
        raise KeyError("scenes")

    last = hold(small, fails)[-1]
    assert last.state == "error" and last.text.startswith("The debate failed after 0 seconds")


@pytest.fixture(scope="module")
def played(shipped) -> Run:
    """A run of two chunks, the second under another prompt that came as a cue."""
    run = Run(1 << 24)
    run.add_cues(cues(f"{SEA} [1]", 1))
    plan = Plan.from_form(prompt=HILLS, seed=0, length=2, view="A", a="full", b="full")
    *_, last = live(shipped, plan, run, Queue(), Limits(lead=1e9))
    assert last["state"] == "done", last["text"]
    return run


def test_cues_take_effect_at_their_chunk_and_the_director_is_told_what_was_shown(shipped, played):
    prompts, facts = told_of(played, shipped, True)
    assert prompts == (HILLS, SEA)
    assert facts[0].startswith("The newest frames show ")
    assert facts[1] == "Of the past, the cache holds seconds 0.0 to 1.5."
    assert told_of(played, shipped, False)[1] == facts[1:]
    assert told_of(None, shipped, True) == told_of(Run(0), shipped, True) == ((), ())


def test_scenes_go_into_the_run_that_plays_or_into_the_next_storyboard(small):
    registry = Registry()
    handlers = Handlers(small, registry, None)
    request = SimpleNamespace(session_hash="visitor")
    text, note = handlers.use(SCENES, request)
    assert text == SCENES and "Press Go live" in note
    run = registry.begin("visitor")
    run.live = True
    run.put(b"chunk")
    _, note = handlers.use(SCENES, request)
    assert "2 scenes play from chunk 2 on." in note
    assert [change.prompt for change in run.take_changes()] == [HILLS]
    run.put(b"chunk")
    assert run.take_changes() == []
    run.put(b"chunk")
    assert [change.prompt for change in run.take_changes()] == [SEA]
    assert "ask the director first" in handlers.use("6: flush", request)[1].lower()
    assert "the agreed scenes must be a text" in handlers.use(None, request)[1].lower()
    assert handlers.use_at_once(False, SCENES, request)[1] != note


@pytest.mark.parametrize("during", [True, False])
def test_scenes_begin_with_the_chunk_that_is_said(during, small):
    registry = Registry()
    use = partial(Handlers(small, registry, None).use, f"{SEA} [2] | {HILLS} [1]", SimpleNamespace(session_hash="a"))
    run = registry.begin("a")
    said = []

    class Asking(Steps):
        def step(self, streams, turn, watch, seconds=None):
            if during and run.count == 1 and not said:
                said.append(use()[1])
            return super().step(streams, turn, watch, seconds)

    plan = Plan.from_form(prompt="a green box", seed=0, length=6, view="A", a="full", b="full")
    for manifest in live(small, plan, run, Queue(), Limits(lead=1e9), partial(generate, small, stepping=Asking)):
        if not during and manifest["state"] == "live" and run.count == 2 and not said:
            said.append(use()[1])
    prompts = [unpack(chunk)[0]["prompt"] for chunk in run.chunks()]
    assert prompts == ["a green box"] * 2 + [SEA] * 2 + [HILLS] * 2
    assert "2 scenes play from chunk 3 on." in said[0]


def test_one_scene_plays(small):
    registry = Registry()
    registry.begin("a").live = True
    _, note = Handlers(small, registry, None).use(f"{SEA} [2]", SimpleNamespace(session_hash="a"))
    assert "1 scene plays from chunk 1 on." in note


def test_a_debate_without_scenes_plays_none_as_they_come(shipped):
    handlers, request = Handlers(shipped, Registry(), None), SimpleNamespace(session_hash="visitor")
    [*_, agreed] = handlers.ask("a day by the sea", 2, request)
    [refused] = handlers.ask("", 2, request)
    assert [bool(step[3]) for step in (agreed, refused)] == [True, False]
    assert agreed[2] == agreed[3] and handlers.use_at_once(True, agreed[3], request)[0] == agreed[3]
    assert handlers.use_at_once(True, refused[3], request) == [gr.skip(), gr.skip()], "not those of the debate before"


def test_bad_ideas_are_answered_in_the_drawer(small):
    request = SimpleNamespace(session_hash="visitor")
    handlers = Handlers(small, Registry(), None)
    for idea, count, said in (
        ("", 4, "The idea is empty"),
        ("a ball", 99, "must be 1 to 8"),
        ("a ball", None, "scenes"),
    ):
        [step] = handlers.ask(idea, count, request)
        assert said in step[0] and 'data-state="error"' in step[0]
    [*_, step] = handlers.ask("a fox", 2, request)
    assert "name one with --llm" in step[0]  # the small model is none of the toy world
