"""Every bound holds for every kind of run: a table of bounds x kinds, in which a kind that is not listed fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import gradio as gr
import pytest

from fkv.debate.director import Direction, direct
from fkv.debate.scenes import Brief
from fkv.debate.transcript import Event
from fkv.models.base import VideoModel
from fkv.search.forbidden import GuardedDecoder
from fkv.search.rewards import Outside
from fkv.studio.live import telemetry
from fkv.studio.live.comparison import compare, player
from fkv.studio.live.comparison_plan import ComparisonPlan
from fkv.studio.live.directing import debate
from fkv.studio.live.explore_plan import BY_HAND, ExplorePlan
from fkv.studio.live.exploring import explore
from fkv.studio.live.limits import Limits
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.live.turn import Kind, Turn
from fkv.studio.serving import endpoints

PROMPT = "a red ball bouncing over the sea by day"
Caller = Callable[[], Any]


class Silent:
    """A caller who listens for the first two looks, and is gone then."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def left(self) -> bool:
        self.looks += 1
        return self.looks > 2


def live_run(model: VideoModel, registry: Registry, run: Run | None = None) -> str:
    plan = Plan.from_form(prompt=PROMPT, seed=0, length=8, view="B", a="full", b="full")
    *_, last = live(model, plan, run or Run(1 << 20), registry.queue, registry.limits)
    return last["text"]


def compare_tab(model: VideoModel, registry: Registry, run: Run | None = None, listener: Any = None) -> str:
    plan = ComparisonPlan.from_form(["full", "per-step"], PROMPT, "0", 5)
    play = player(model, registry.limits)
    *_, last = compare(model, play, plan, run or Run(0), registry.queue, registry.limits, listener)
    return last.text


def endpoint(name: str, *arguments: Any) -> Callable[[VideoModel, Registry], str]:
    def call(model: VideoModel, registry: Registry) -> str:
        offered = endpoints.Endpoints(model, registry, player(model, registry.limits))
        try:
            result = getattr(offered, name)(*arguments)
        except gr.Error as error:
            return str(error.message)
        return str(result)

    return call


def director(model: VideoModel, registry: Registry, run: Run | None = None, listener: Any = None) -> str:
    def slowed(brief: Brief, seen: Callable[[Event], None]) -> Direction:
        return direct(brief, seen=lambda event: (time.sleep(0.02), seen(event)))

    limits = registry.limits
    *_, last = debate(model, Brief(PROMPT), slowed, run or Run(0), registry.queue, limits, listener)
    return last.text


def explorer(**fields: Any) -> Callable[[VideoModel, Registry], str]:
    def explore_tab(model: VideoModel, registry: Registry, run: Run | None = None) -> str:
        form = {"prompt": PROMPT, "seed": 0, "policy": "full", "strategy": "beam", "chunks": 3, "width": 3}
        form |= {"lookahead": 1, "passes": 100, "rewards": "continuity", "moves": ["noise"], "story": ""}
        plan = ExplorePlan.from_form(model, **form | fields)
        *_, last = explore(model, plan, run or Run(1 << 20), registry.queue, registry.limits)
        return last["text"]

    return explore_tab


RUNS: dict[str, list[Callable[[VideoModel, Registry], str]]] = {
    "live": [live_run],
    "compare": [compare_tab, endpoint("compare", "full,per-step", PROMPT, 5, 0)],
    "clip": [endpoint("generate_clip", PROMPT, "full", 8, 0)],
    "profile": [endpoint("profile", "\n".join([PROMPT] * 3), 4, 0.8, 0)],
    "director": [director],
    "explore": [explorer(), explorer(strategy=BY_HAND)],
}
"""Per kind, every way in which such a run begins; programs of MCP call the same endpoints."""
TABLE = [(kind, run) for kind, runs in RUNS.items() for run in runs]
NAMES = [f"{kind}-{number}" for number, (kind, _) in enumerate(TABLE)]
every_run = pytest.mark.parametrize(("kind", "begin"), TABLE, ids=NAMES)


@pytest.fixture
def ended(monkeypatch, caplog) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.facts)
    monkeypatch.setattr(telemetry.log, "handlers", [handler])
    caplog.set_level(logging.INFO, telemetry.log.name)
    return told


def test_the_table_lists_every_kind_of_run():
    assert set(RUNS) == set(get_args(Kind))


@every_run
def test_the_kv_cache_is_bounded(toy, ended, kind, begin):
    text = begin(toy, Registry(Limits(lead=1e9, kv=1)))
    if kind == "director":  # it has none
        assert ended[-1]["ended"] == "finished"
        return
    assert (ended[-1]["kind"], ended[-1]["ended"]) == (kind, "kv limit")
    assert ended[-1]["chunks"] <= 2 and (kind == "compare" or "KV cache exceeded" in text)


@every_run
def test_the_length_is_bounded(toy, ended, kind, begin):
    begin(toy, Registry(Limits(lead=1e9, seconds=0.0)))
    assert (ended[-1]["kind"], ended[-1]["ended"]) == (kind, "time limit") and ended[-1]["chunks"] <= 2


@every_run
def test_a_turn_ends_once_others_wait(toy, ended, kind, begin):
    registry = Registry(Limits(lead=1e9, turn=0.0))
    served = threading.Event()

    def next_one() -> None:
        while not registry.queue.running:
            time.sleep(0.001)
        with registry.queue.join("next"):
            while registry.queue.place("next", 1.0):
                pass
            served.set()

    other = threading.Thread(target=next_one)
    other.start()
    begin(toy, registry)
    other.join(60)
    assert served.is_set() and (ended[-1]["kind"], ended[-1]["ended"]) == (kind, "turn")


@every_run
def test_memory_for_frames_is_bounded(toy, ended, kind, begin):
    registry = Registry(Limits(lead=1e9, total=100))
    run = registry.begin("visitor")
    begin(toy, registry, run) if begin is live_run else begin(toy, registry)
    if kind in ("live", "profile", "director"):  # the first drops its oldest chunks, the others decode nothing
        assert ended[-1]["ended"] == "finished" and run.frame_bytes == 0
    else:
        assert ended[-1]["ended"] == "memory limit" and ended[-1]["chunks"] <= 2


@every_run
def test_a_run_ends_for_which_nobody_waits(toy, ended, monkeypatch, kind, begin):
    monkeypatch.setattr(endpoints, "Caller", Silent)
    registry = Registry(Limits(lead=1e9, idle=0.0))
    begin(toy, registry, None, Silent()) if begin in (compare_tab, director) else begin(toy, registry)
    expected = "idle" if kind in ("live", "explore") else "left"
    assert (ended[-1]["kind"], ended[-1]["ended"]) == (kind, expected) and ended[-1]["chunks"] <= 4


@pytest.mark.parametrize(
    ("limit", "reason"), [({"kv": 1}, "kv limit"), ({"seconds": 0.0}, "time limit"), ({"idle": 0.0}, "idle")]
)
def test_streams_that_share_the_machine_stand_under_the_same_bounds(toy, ended, limit, reason):
    registry = Registry(Limits(lead=1e9, together=2, **limit))
    visitors = [threading.Thread(target=live_run, args=(toy, registry)) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(60)
    assert [told["ended"] for told in ended] == [reason] * 2 and all(told["chunks"] <= 4 for told in ended)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_pause_is_bounded(kind):
    registry = Registry(Limits(pause=0.0))
    run = Run(0)
    run.pause(True)
    time.sleep(0.002)
    current = Turn(kind, run, registry.queue, registry.limits)
    assert "a pause may last" in (current.over() or "") and run.ended == "pause limit"


@every_run
def test_a_guard_ends_every_kind_of_run_before_what_it_sees(toy, ended, kind, begin):
    assert toy.decoder is not None
    rejecting = GuardedDecoder(toy.decoder, Outside("a detector", lambda video, prompt: 0.0))
    text = begin(replace(toy, decoder=rejecting), Registry(Limits(lead=1e9)))
    if kind in ("profile", "director"):  # they show no frames
        assert ended[-1]["ended"] == "finished"
        return
    assert (ended[-1]["kind"], ended[-1]["ended"], ended[-1]["chunks"]) == (kind, "refused", 0)
    assert "is forbidden here" in text
