"""Visitors whose streams are computed together: each has own chunks and limits, and nobody fails for another."""

from __future__ import annotations

import threading
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from fkv import policies
from fkv.stream import Stream
from fkv.studio.live import attention_probe, together
from fkv.studio.live.limits import Limits, span
from fkv.studio.live.live import live
from fkv.studio.live.loop import generate
from fkv.studio.live.plan import Plan
from fkv.studio.live.queue import Queue
from fkv.studio.live.run import Run
from fkv.studio.live.together import Together
from fkv.studio.live.turn import _rounded
from fkv.studio.media.protocol import unpack

PROMPTS = ("a red ball over the sea", "a blue star in the city")
FREE = {"lead": float("inf"), "idle": float("inf")}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(together, "GATHER", 5.0)


def in_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)


def plan_of(number, length):
    policy = ("full", "sliding-window:window_frames=6")[number]
    return Plan.from_form(prompt=PROMPTS[number], seed=number, length=length, view="A", a=policy, b="full")


def pictures(run):
    found = []
    for data in run.chunks():
        record, frames = unpack(data)
        decoded = [cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR).astype(float) for frame in frames]
        found.append((record["streams"]["A"], np.stack(decoded)))
    return found


def test_two_visitors_see_what_each_sees_alone(small):
    lengths, runs, ended = (5, 3), [Run(1 << 24), Run(1 << 24)], {}
    queue, limits = Queue(together=2), Limits(together=2, **FREE)
    shared = Together(2)
    generating = partial(generate, small, stepping=lambda: shared)

    def visit(number):
        *_, ended[number] = live(small, plan_of(number, lengths[number]), runs[number], queue, limits, generating)

    in_threads(partial(visit, 0), partial(visit, 1))
    for number, length in enumerate(lengths):
        assert ended[number]["state"] == "done" and f"Finished: {length} chunks" in ended[number]["text"]
        alone = Run(1 << 24)
        *_, _ = live(small, plan_of(number, length), alone, Queue(), Limits(**FREE))
        for (record, frames), (wanted_record, wanted) in zip(pictures(runs[number]), pictures(alone), strict=True):
            assert record["policy"] == wanted_record["policy"] and record["kv_bytes"] == wanted_record["kv_bytes"]
            assert np.abs(frames - wanted).mean() < 0.5
    shared = [[record.get("rows", 1) for record, _ in pictures(run)] for run in runs]
    assert shared[0].count(2) == shared[1].count(2) >= 2 and shared[0][-1] == 1, "the second visitor ends first"


def test_one_visitor_who_fails_ends_no_other(small):
    class Broken:
        def initial(self, chunk, shape):
            return torch.full(shape, torch.nan if chunk else 0.0)

        def between(self, chunk, step, shape):
            return torch.zeros(shape)

    streams = [Stream(small, policies.make("full"), prompt) for prompt in PROMPTS]
    streams[1].noise = Broken()
    many, told = Together(2), [[], []]

    def visit(number):
        for _ in range(2):
            try:
                made, _ = many.step({"A": streams[number]}, ["A"], None)
                told[number].append(made["A"].index)
            except ValueError as error:
                told[number].append(str(error))

    in_threads(partial(visit, 0), partial(visit, 1))
    assert told[0] == [0, 1] and told[1][0] == 0 and "not finite" in told[1][1]


def test_two_streams_and_watched_ones_have_a_pass_to_themselves(small, monkeypatch):
    alone = []
    monkeypatch.setattr(attention_probe, "step", lambda *given: alone.append(given) or ({}, {}))
    many, watch = Together(2), object()
    many.step({"A": 1, "B": 2}, ["A", "B"], None)
    many.step({"A": 1}, ["A"], watch)
    assert [given[2] for given in alone] == [None, watch]


def test_who_waits_is_told_for_how_long_about():
    queue = Queue(together=2)
    assert queue.expected(3, longest=180) == ("at most", 360)
    for seconds in (20, 40, 60):
        queue.took(seconds)
    assert queue.expected(1, longest=180) == ("about", 40) and queue.expected(3, longest=30) == ("about", 60)
    assert [_rounded(seconds) for seconds in (2, 44, 80, 100, 360)] == [
        "10 seconds",
        "40 seconds",
        "1 minute",
        "2 minutes",
        "6 minutes",
    ]
    assert [span(seconds) for seconds in (0.05, 1, 90, 100)] == [
        "0.05 seconds",
        "1 second",
        "1.5 minutes",
        "1.67 minutes",
    ]


def test_the_queue_lets_in_those_that_share_and_keeps_their_order():
    queue, tickets = Queue(together=2), [object() for _ in range(5)]
    shares = (True, True, True, False, True)
    joined = [queue.join(ticket, share) for ticket, share in zip(tickets, shares, strict=True)]

    def places():
        return [queue.place(ticket) for ticket in tickets]

    [each.__enter__() for each in joined]
    assert places() == [0, 0, 1, 2, 3] and (queue.running, queue.waiting) == (2, 3)
    joined.pop(0).__exit__(None, None, None)
    tickets.pop(0)
    assert places() == [0, 0, 1, 2]
    for expected in ([0, 1, 2], [0, 1], [0]):
        joined.pop(0).__exit__(None, None, None)
        tickets.pop(0)
        assert places() == expected, "what does not share has the machine alone, and nobody overtakes it"
    assert Queue().together == 1
