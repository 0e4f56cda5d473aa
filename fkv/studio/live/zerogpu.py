"""ZeroGPU: a GPU that is lent for some seconds at a time, to a process that is forked for it.

Weights cross at the fork; arguments and items are pickled. The process runs ahead of its consumer, is kept for later
calls, and sees nothing of what happens in the studio meanwhile: what a visitor asks for during a run is written to a
file, which the process reads. The package `spaces` is imported on a ZeroGPU Space only.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fkv.models.base import VideoModel

from . import model_thread
from .limits import Limits
from .loop import Generate, generate
from .plan import Plan
from .queue import Queue
from .run import Run
from .telemetry import Tally
from .together import Together
from .turn import Turn

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

LEAD_IN = 15.0  # seconds that a call may take before its work begins: starting the process, moving weights
POLL = 0.05  # seconds between two looks at what the visitor has asked for


def here() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def notice(limits: Limits) -> str:
    """What a visitor of a ZeroGPU Space should know."""
    return (
        f"ZeroGPU lends each run a GPU for at most {limits.seconds:g} seconds. "
        "Pause, stop and prompt changes take effect with the next chunk; a pause does not stop the clock."
    )


def lend(
    work: Callable[P, Generator[T, None, None]], seconds: Callable[P, float]
) -> Callable[P, Generator[T, None, None]]:
    """Lend a GPU to each call of a generator function; anywhere but on a ZeroGPU Space, call it in the model's
    thread.

    Args:
        work: The generator function, whose arguments and items can be pickled.
        seconds: How long a call may take, from its arguments.

    Returns:
        A generator function that raises the ValueErrors of `work`, and a ValueError with ZeroGPU's message where it
        lends no GPU or takes it back.
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

    def near(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        try:
            with closing(lent(*args, **kwargs)) as items:
                for item, problem in items:
                    if problem is not None:
                        raise ValueError(problem)
                    yield item
        except gr.Error as error:
            raise ValueError(f"ZeroGPU: {error.message}") from None

    return near


def generating(model: VideoModel, together: int = 1) -> Generate:
    """`loop.generate` for one model, where its GPU is, for `together` visitors at once."""
    if not here() and together > 1:
        shared = Together(together)
        return partial(generate, model, stepping=lambda: shared)
    if not here():
        return model_thread.iterating_ahead(partial(generate, model))

    def needed(plan: Plan, limits: Limits) -> float:
        if plan.chunks is None:
            return limits.seconds
        return min(limits.seconds, 5 + 2 * plan.chunks * model.chunk_seconds)

    def far(
        plan: Plan, limits: Limits, requests: Path
    ) -> Generator[tuple[str, str, str, dict[str, Tally], bytes | None], None, None]:
        run = Run(limits.memory)
        limits = dataclasses.replace(limits, seconds=needed(plan, limits))
        turn = Turn("live", run, Queue(), limits, plan.chunks, began=time.monotonic())
        turn.tallies = {name: Tally() for name in plan.policies}
        sent = 0
        with (
            turn.explained(model.device),
            _repeating(_reader(requests, run)),
            closing(generate(model, plan, turn)) as states,
        ):
            for state, text in states:
                yield state, text, run.ended, turn.tallies, run.get(sent) if run.files > sent else None
                sent = run.files
        if turn.problem:
            yield "error", turn.problem, run.ended, turn.tallies, None

    lent = lend(far, lambda plan, limits, requests: needed(plan, limits))

    def near(plan: Plan, turn: Turn) -> Generator[tuple[str, str], None, None]:
        run = turn.run
        with mirrored(run) as requests, closing(lent(plan, turn.limits, requests)) as items:
            for state, text, run.ended, turn.tallies, chunk in items:
                if chunk is not None:
                    run.put(chunk)
                    turn.chunks = run.count
                    run.begun = run.count + 1  # the process has gone on
                if state in ("live", "paused") and (
                    over := turn.over()
                ):  # who waits and who fetches is known here only
                    yield "done", over
                    return
                yield state, text

    return near


@contextmanager
def mirrored(run: Run) -> Iterator[Path]:
    """A file with what the visitor has asked of a run: its control, the head to watch, and every change so far."""
    with tempfile.TemporaryDirectory(prefix="fkv-zero-") as folder:
        file = Path(folder) / "requests"
        changes: list[bytes] = []
        written = None

        def write() -> None:
            nonlocal written
            for change in run.take_changes():
                try:
                    changes.append(pickle.dumps(change))
                except (pickle.PicklingError, AttributeError, TypeError):
                    log.exception("a change cannot be passed on")
            requests = run.control, run.watch, tuple(changes)
            if requests != written:
                file.with_suffix(".new").write_bytes(pickle.dumps(requests))
                file.with_suffix(".new").replace(file)
                written = requests

        with _repeating(write):
            yield file


def _reader(file: Path, run: Run) -> Callable[[], Any]:
    """Pass to `run` what a file written by `mirrored` asks for and was not passed on yet."""
    done = 0

    def read() -> None:
        nonlocal done
        if not file.exists():
            return
        control, run.watch, changes = pickle.loads(file.read_bytes())
        for change in changes[done:]:
            run.add_change(pickle.loads(change))
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
