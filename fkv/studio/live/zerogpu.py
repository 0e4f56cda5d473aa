"""ZeroGPU: a GPU that is lent for some seconds at a time, to a process that is forked for it.

Weights cross at the fork; what a call is given and what it yields is pickled. The process does not wait until an item is
wanted, is kept for later calls, and sees nothing of what happens here meanwhile: what a visitor asks for during a run is
written to a file, which the process reads. The package `spaces` is imported on a ZeroGPU Space alone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fkv.models.base import VideoModel

from . import model_thread
from .live import Generate, Plan, guarded
from .sessions import Limits, Queue, Run
from .telemetry import Tally

P, T = ParamSpec("P"), TypeVar("T")
log = logging.getLogger(__name__)

LEAD_IN = 15.0
"""Seconds that a call may take before its work begins: starting the process, moving weights."""
POLL = 0.05


def here() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def notice(limits: Limits) -> str:
    """What a visitor of a ZeroGPU Space should know."""
    return (
        f"ZeroGPU lends a run its GPU for at most {limits.seconds:g} seconds. Pause, stop and a new prompt reach it with the next chunk; "
        "a pause does not stop the clock."
    )


def lend(work: Callable[P, Iterator[T]], seconds: Callable[P, float]) -> Callable[P, Iterator[T]]:
    """`work`, a generator function, with a GPU lent for the call; anywhere but on a ZeroGPU Space, done in the model's thread.

    Arguments and items must be picklable. seconds : how long a call may take, from its arguments.
    The ValueErrors of `work` cross; ValueError with ZeroGPU's own words where it lends no GPU or takes it back.
    """
    if not here():
        return model_thread.iterating(work)
    import gradio as gr
    import spaces

    def far(*args: P.args, **kwargs: P.kwargs) -> Iterator[tuple[T | None, str | None]]:
        try:
            for item in work(*args, **kwargs):
                yield item, None
        except ValueError as error:
            yield None, str(error)

    lent = spaces.GPU(far, duration=lambda *args, **kwargs: round(LEAD_IN + seconds(*args, **kwargs)))

    def near(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        try:
            with closing(lent(*args, **kwargs)) as items:
                for item, problem in items:
                    if problem is not None:
                        raise ValueError(problem)
                    yield item
        except gr.Error as error:
            raise ValueError(f"ZeroGPU: {error.message}") from None

    return near


def chunk_seconds(model: VideoModel) -> float:
    """How long one chunk plays."""
    return model.frames_per_chunk * model.video_frames_per_latent / model.fps


def generating(model: VideoModel) -> Generate:
    """`live.guarded` for one model, where a GPU is."""
    if not here():
        return model_thread.iterating(partial(guarded, model))

    def needed(plan: Plan, limits: Limits) -> float:
        return (
            limits.seconds if plan.chunks is None else min(limits.seconds, 5 + 2 * plan.chunks * chunk_seconds(model))
        )

    def far(plan: Plan, limits: Limits, asked: Path) -> Iterator[tuple[str, str, str, dict[str, Tally], bytes | None]]:
        run, tallies, sent = Run(limits.memory), {name: Tally() for name in plan.policies}, 0
        limits = dataclasses.replace(limits, seconds=needed(plan, limits))
        with _repeating(_reader(asked, run)), closing(guarded(model, plan, run, Queue(), limits, tallies)) as states:
            for state, text in states:
                yield state, text, run.ended, tallies, run.get(sent) if run.count > sent else None
                sent = run.count

    lent = lend(far, lambda plan, limits, asked: needed(plan, limits))

    def near(
        plan: Plan, run: Run, queue: Queue, limits: Limits, tallies: dict[str, Tally]
    ) -> Iterator[tuple[str, str]]:
        with mirrored(run) as asked, closing(lent(plan, limits, asked)) as items:
            for state, text, run.ended, new, file in items:
                tallies.update(new)
                if file is not None:
                    run.put(file)
                yield state, text

    return near


@contextmanager
def mirrored(run: Run) -> Iterator[Path]:
    """A file that says what has been asked of `run`: whether to stop, pause or step, which heads to watch, every change so far."""
    with tempfile.TemporaryDirectory(prefix="fkv-zero-") as folder:
        file, changes, written = Path(folder) / "asked", [], None

        def write() -> None:
            nonlocal written
            for change in run.take_changes():
                try:
                    changes.append(pickle.dumps(change))
                except (pickle.PicklingError, AttributeError, TypeError):
                    log.exception("a change cannot be passed on")
            asked = run.control, run.watch, tuple(changes)
            if asked != written:
                file.with_suffix(".new").write_bytes(pickle.dumps(asked))
                file.with_suffix(".new").replace(file)
                written = asked

        with _repeating(write):
            yield file


def _reader(file: Path, run: Run) -> Callable[[], Any]:
    """Do to `run` what `file`, written by `mirrored`, asks for and was not done yet."""
    done = 0

    def read() -> None:
        nonlocal done
        if not file.exists():
            return
        control, run.watch, changes = pickle.loads(file.read_bytes())
        for change in changes[done:]:
            run.ask(pickle.loads(change))
        done = len(changes)
        run.follow(control)

    return read


@contextmanager
def _repeating(act: Callable[[], Any]) -> Iterator[None]:
    """Call `act` again and again in a thread of its own until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(POLL):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
