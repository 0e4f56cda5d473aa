"""One live run, from the queue to its last chunk, as manifests for the page."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fkv.models.base import VideoModel
from fkv.parallel.lockstep import device_of

from .limits import Limits
from .loop import Generate, generate
from .plan import Plan
from .queue import Queue
from .run import Run
from .telemetry import Tally
from .turn import turn


def live(
    model: VideoModel, plan: Plan, run: Run, queue: Queue, limits: Limits, generating: Generate | None = None
) -> Generator[dict[str, Any], None, None]:
    """Run a plan. Closing the iterator frees the caches.

    Args:
        model: What generates.
        plan: What the visitor wants.
        run: Its control, and where its chunks are kept.
        queue: The queue to join.
        limits: The bounds that end it.
        generating: `loop.generate` for the model, by default in this thread.

    Yields:
        Manifests: the key of the run, how many chunks there are and how many files to fetch, its state (queued, live,
            paused, then done or error), and a status sentence.
    """
    generating = generating or partial(generate, model)
    run.source = f"live on {device_of(model, len(plan.policies))}"
    link = f"{urlencode({'model': model.name})}&{plan.link}"

    def manifest(state: str, text: str) -> dict[str, Any]:
        return {
            "run": run.key,
            "began": run.began,
            "chunks": run.count,
            "files": run.files,
            "state": state,
            "text": text,
            "fps": model.fps,
            "source": run.source,
            "link": link,
            "streams": list(plan.policies),
            "policies": plan.texts,
        }

    settings: dict[str, Any] = {"policies": plan.texts, "seed": plan.seed, "asked": plan.chunks, "prompt": plan.prompt}
    shares = limits.together > 1 and len(plan.policies) == 1
    with turn("live", run, queue, limits, model, total=plan.chunks, shares=shares, **settings) as current:
        current.tallies = {name: Tally() for name in plan.policies}
        for text in current.wait():
            yield manifest("queued", text)
        with closing(generating(plan, current)) as states:
            for state, text in states:
                yield manifest(state, text)
    if current.problem:
        yield manifest("error", current.problem)
