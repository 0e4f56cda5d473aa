"""What programs may call: a clip, a comparison, a profile of the heads. Sizes are bounded, calls stand in line like visitors, and a
call whose caller leaves ends with the chunk under way (on ZeroGPU a profile runs to its end, which its loan bounds)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from fkv.analysis.profile import profile as profile_heads
from fkv.models.base import VideoModel
from fkv.policies import parse, split
from fkv.report import rates, stream_record
from fkv.stream import Chunk, check_prompt, check_seed
from fkv.studio.live import comparison
from fkv.studio.live.comparison import Play
from fkv.studio.live.errors import explain, free
from fkv.studio.live.live import WAIT, whole, words
from fkv.studio.live.sessions import Queue, Registry, Run
from fkv.studio.live.telemetry import stream_ended
from fkv.studio.live.zerogpu import chunk_seconds, here, lend
from fkv.studio.media.artifacts import Shelf
from fkv.video import Mp4Writer

from .disconnect import Caller, Left

log = logging.getLogger(__name__)

LONGEST = 120
"""Chunks of a clip."""
MOST = 240
"""Chunks of a comparison in all."""
PROFILED = {"prompts": (1, 8), "chunks": (3, 14)}


def add_endpoints(model: VideoModel, registry: Registry, play: Play) -> None:
    """Offer `generate_clip`, `compare` and `profile` on the page that is being built."""
    queue = registry.queue
    limits = registry.limits
    shelf = Shelf()
    device = model.device  # asked for here, since on ZeroGPU only the main thread sees the GPU by name

    def generate_clip(
        prompt: str, policy: str = "forcing-kv", chunks: int = 7, seed: int = 0
    ) -> tuple[str, dict[str, Any]]:
        """Generate a video: an MP4 file, and its figures (FPS, seconds per stage, KV bytes, frame hash) per chunk.

        Parameters:
            prompt: What the video shows.
            policy: What the KV cache keeps, as name or name:parameter=value.
            chunks: Length, 1 to 120.
            seed: The same seed gives the same noise.
        """
        with _answer(model, "clip", {"A": policy}, seed, chunks, prompt) as call:
            chunks, seed = whole(chunks, "the number of chunks"), check_seed(whole(seed, "the seed"))
            parse(words(policy, "the policy")), check_prompt(prompt)
            if not 1 <= chunks <= LONGEST:
                raise ValueError(f"a clip has 1 to {LONGEST} chunks, not {chunks}")
            with call.turn(queue), shelf.place("forcing-kv.mp4") as path, Mp4Writer(path, model.fps) as out:
                for _, chunk in call.caller.while_here(play((policy,), prompt, seed, chunks, 0)):
                    call.made.append(chunk)
                    out.write(chunk.video)
            return str(path), stream_record(call.made, model, seed, device)

    def compare(policies: str, prompt: str, chunks: int = 7, seed: int = 0) -> dict[str, Any]:
        """Compare cache policies on the same prompt and noise: FPS, speed against the first policy, KV bytes, PSNR to the first policy,
        discontinuity, and adherence to the prompt where an oracle can read the model.

        Parameters:
            policies: Policies with commas between them, each as name or name:parameter=value; the first is the reference.
            prompt: What the videos show.
            chunks: Length of each stream, 2 to 60; 240 in all.
            seed: The same seed gives the same noise.
        """
        try:
            plan = comparison.ComparisonPlan.from_form(
                split(words(policies, "the policies")), prompt, str(seed), chunks, MOST
            )
        except ValueError as error:
            raise gr.Error(explain(error, "")[1], print_exception=False) from None
        run = Run(0)
        *_, last = Caller().while_here(comparison.work(model, play, plan, run, queue, limits))
        if last.state == "error" or not last.records:
            raise gr.Error(last.text, print_exception=False)
        return comparison.report(model, plan, last.records, device, run.ended)

    def profile(prompts: str, chunks: int = 7, threshold: float = 0.8, seed: int = 0) -> dict[str, Any]:
        """Find out which attention heads are static and which dynamic: roles in the form of a roles file, the score of every head, and
        how stable the scores are.

        Parameters:
            prompts: 1 to 8 prompts to stream under the full cache, one a line.
            chunks: Length of each stream, 3 to 14; the last chunk is measured.
            threshold: Heads that score at least this are static.
            seed: Chooses the noise.
        """
        with _answer(model, "profile", {"A": "full"}, seed, chunks, prompts) as call:
            chunks, seed = whole(chunks, "the number of chunks"), whole(seed, "the seed")
            lines = [text for text in words(prompts, "the prompts").splitlines() if text.strip()]
            for (what, (least, greatest)), count in zip(PROFILED.items(), (len(lines), chunks)):
                if not least <= count <= greatest:
                    raise ValueError(f"a profile takes {least} to {greatest} {what}, not {count}")
            if not isinstance(threshold, (int, float)):
                raise ValueError(f"the threshold must be a number, not {threshold!r:.40}")
            with call.turn(queue):
                return next(
                    score(lines, chunks, threshold, seed, bool if here() else call.caller.stay)
                )  # `bool` can be pickled

    def _score(
        lines: list[str], chunks: int, threshold: float, seed: int, progress: Callable[[], Any]
    ) -> Iterator[dict[str, Any]]:
        yield profile_heads(model, lines, (seed,), chunks, threshold, progress=progress).report()

    score = lend(_score, lambda lines, chunks, *_: min(limits.seconds, 5 + len(lines) * chunks * chunk_seconds(model)))
    example = model.examples[0] if model.examples else ""
    figures = gr.JSON(label="figures", visible=False)
    length, seed = _number(7, "chunks"), _number(0, "seed")
    for function, inputs, outputs in (
        (
            generate_clip,
            [_text("", "prompt"), _text("forcing-kv", "policy"), length, seed],
            [gr.File(label="MP4", visible=False), figures],
        ),
        (compare, [_text("full,forcing-kv", "policies"), _text(example, "prompt"), length, seed], figures),
        (profile, [_text(example, "prompts"), length, _number(0.8, "threshold", None), seed], figures),
    ):
        gr.Button(visible=False).click(
            function, inputs, outputs, api_name=function.__name__, concurrency_limit=4, show_progress="hidden"
        )


def _text(value: str, label: str) -> gr.Textbox:
    return gr.Textbox(value or None, label=label, visible=False)


def _number(value: float, label: str, precision: int | None = 0) -> gr.Number:
    return gr.Number(value, label=label, precision=precision, visible=False)


@dataclass(eq=False)
class _Call:
    """A call under way. turned : when its turn came; None while it waits."""

    caller: Caller = field(default_factory=Caller)
    made: list[Chunk] = field(default_factory=list)
    turned: float | None = None

    @contextmanager
    def turn(self, queue: Queue) -> Iterator[None]:
        """Wait for the turn, and keep it until the block ends. Raises `Left` when the caller leaves meanwhile."""
        with queue.join(self):
            while queue.place(self, WAIT):
                self.caller.stay()
            self.turned = time.monotonic()
            yield


@contextmanager
def _answer(model: VideoModel, kind: str, names: dict[str, str], seed: Any, asked: Any, prompt: Any) -> Iterator[_Call]:
    """Log how a call ended; a failure becomes a sentence for the caller, once its memory is given back."""
    call, began, ended, problem = _Call(), time.monotonic(), "finished", ""
    try:
        yield call
    except Left as error:
        ended, problem = "left", error.message
    except Exception as error:
        ended, problem = explain(error, f"{len(call.made)} chunks")
        if ended == "failed":
            log.exception("a call failed")
            problem = f"The {kind} broke off after {len(call.made)} chunks: {type(error).__name__}."
    now, peak = time.monotonic(), max((chunk.kv_bytes for chunk in call.made), default=0)
    turned = call.turned or now
    stream_ended(
        ended=ended,
        kind=kind,
        model=model.name,
        policies=names,
        seed=seed,
        asked=asked,
        chunks=len(call.made),
        bytes=0,
        waited=round(turned - began, 3),
        seconds=round(now - turned, 3),
        streams={"A": rates(call.made) | {"kv_bytes_peak": peak}},
        prompt=prompt,
    )
    if problem:
        call.made.clear()
        free(model.device)
        raise gr.Error(problem, print_exception=False)
