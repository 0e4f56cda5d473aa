"""What programs may call: a clip, a comparison, a profile of the heads.

Sizes are bounded, calls wait in the queue like visitors, and a call whose caller leaves ends with the current chunk (on
ZeroGPU a profile runs to its end, which its loan bounds).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import gradio as gr

from fkv.analysis.profile import profile as profile_heads
from fkv.models.base import VideoModel
from fkv.parameters import Share, check
from fkv.policies import POLICIES, parse, split, write
from fkv.report import stream_record
from fkv.stream import Chunk, check_prompt, check_seed, video_of
from fkv.studio.errors import sentence
from fkv.studio.live import comparison, forms
from fkv.studio.live.comparison import Play
from fkv.studio.live.comparison_figures import report
from fkv.studio.live.comparison_plan import ComparisonPlan
from fkv.studio.live.disconnect import Caller
from fkv.studio.live.limits import Limits
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.live.telemetry import Tally
from fkv.studio.live.turn import Kind, Turn, turn
from fkv.studio.live.zerogpu import here, lend
from fkv.studio.media.artifacts import Artifacts
from fkv.video import Mp4Writer

COMPARISON_CHUNKS = 240  # chunks of a comparison in all


def add_endpoints(model: VideoModel, registry: Registry, play: Play) -> None:
    """Offer `generate_clip`, `compare` and `profile` on the page that is being built."""
    endpoints = Endpoints(model, registry, play)
    example = model.examples[0] if model.examples else ""
    figures = gr.JSON(label="figures", visible=False)
    clip = gr.File(label="MP4", visible=False)
    chunks = _number(7, "chunks")
    seed = _number(0, "seed")
    for function, inputs, outputs in (
        (endpoints.generate_clip, [_text("", "prompt"), _text("forcing-kv", "policy"), chunks, seed], [clip, figures]),
        (endpoints.compare, [_text("full,forcing-kv", "policies"), _text(example, "prompt"), chunks, seed], figures),
        (endpoints.profile, [_text(example, "prompts"), chunks, _number(0.8, "threshold", None), seed], figures),
    ):
        gr.Button(visible=False).click(
            function, inputs, outputs, api_name=function.__name__, concurrency_limit=4, show_progress="hidden"
        )


def lists_policies(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: name the policies where the description of an endpoint says POLICIES."""
    function.__doc__ = (function.__doc__ or "").replace("POLICIES", ", ".join(POLICIES))
    return function


class Endpoints:
    """The functions behind the endpoints; their docstrings are the descriptions that programs read."""

    def __init__(self, model: VideoModel, registry: Registry, play: Play) -> None:
        self._model = model
        self._registry = registry
        self._play = play
        self._artifacts = Artifacts()
        self._device = model.device  # read here: on ZeroGPU only the main thread knows the GPU by name
        self._score = _scoring(model, registry.limits.seconds)

    @lists_policies
    def generate_clip(
        self, prompt: str, policy: str = "forcing-kv", chunks: int = 7, seed: int = 0
    ) -> tuple[str, dict[str, Any]]:
        """Generate a video: an MP4 file, and its figures (FPS, seconds per stage, KV bytes, frame hash) per chunk.

        Args:
            prompt: What the video shows.
            policy: What the KV cache keeps, as name or name:parameter=value. The names: POLICIES.
            chunks: Length, 1 to 120.
            seed: The same seed gives the same noise.
        """
        made: list[Chunk] = []
        with self._turn("clip", policies={"A": _logged(policy)}, seed=seed, asked=chunks, prompt=prompt) as current:
            current.total = check("the number of chunks", chunks, forms.ClipChunks)
            check_seed(seed)
            check_prompt(prompt)
            name = parse(forms.text(policy, "the policy")).name
            self._wait(current)
            with (
                self._artifacts.write(f"forcing-kv-studio-{name}-seed{seed}.mp4") as path,
                Mp4Writer(path, self._model.fps) as out,
                closing(self._play((policy,), prompt, seed, chunks, 0, False)) as steps,
            ):
                for _, chunk in steps:
                    made.append(chunk)
                    current.count(chunk)
                    current.tallies["A"].add(chunk)
                    out.write(video_of([chunk]))
                    current.check()
        return str(path), stream_record(made, self._model, seed, self._device)

    @lists_policies
    def compare(self, policies: str, prompt: str, chunks: int = 7, seed: int = 0) -> dict[str, Any]:
        """Compare cache policies on the same prompt and noise: FPS, speed against the first policy, KV bytes, PSNR to
        the first policy, discontinuity, and adherence to the prompt where an oracle can read the model.

        Args:
            policies: Policies with commas between them, each as name or name:parameter=value; the first is the
                reference. The names: POLICIES.
            prompt: What the videos show.
            chunks: Length of each stream, 2 to 60; 240 in all.
            seed: The same seed gives the same noise.
        """
        run = Run(0)
        try:
            names = split(forms.text(policies, "the policies"))
            seconds = self._model.chunk_seconds
            plan = ComparisonPlan.from_form(names, prompt, str(seed), chunks, COMPARISON_CHUNKS, chunk_seconds=seconds)
            registry = self._registry
            *_, last = comparison.compare(self._model, self._play, plan, run, registry.queue, registry.limits, Caller())
        except ValueError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        if last.state == "error" or not last.records:
            raise gr.Error(last.text, print_exception=False)
        return report(self._model, plan, last.records, self._device, run.ended)

    def profile(self, prompts: str, chunks: int = 7, threshold: float = 0.8, seed: int = 0) -> dict[str, Any]:
        """Find out which attention heads are static and which dynamic: roles in the form of a roles file, the score
        of every head, and how stable the scores are.

        Args:
            prompts: 1 to 8 prompts to stream under the full cache, one a line.
            chunks: Length of each stream, 3 to 14; the last chunk is measured.
            threshold: Heads that score at least this are static.
            seed: Chooses the noise.
        """
        with self._turn("profile", policies={"A": "full"}, seed=seed, asked=chunks, prompt=prompts) as current:
            lines = [line for line in forms.text(prompts, "the prompts").splitlines() if line.strip()]
            check("the number of prompts", len(lines), forms.ProfilePrompts)
            check("the number of chunks", chunks, forms.ProfileChunks)
            check("the threshold", threshold, Share)
            check_seed(seed)
            self._wait(current)
            current.total = len(lines) * chunks

            def checked(chunk: Chunk) -> None:
                current.count(chunk)
                current.check()

            progress = partial(_check_kv, current.limits) if here() else checked  # the former can be pickled
            found = next(self._score(lines, chunks, threshold, seed, progress))
            hints = self._model.hints_of(lines)
        return found | ({"hints": hints} if hints else {})

    @contextmanager
    def _turn(self, kind: Kind, **settings: Any) -> Iterator[Turn]:
        """The turn of a call; a failure becomes a sentence for the caller."""
        run = Run(0)
        registry = self._registry
        with turn(kind, run, registry.queue, registry.limits, self._model, listener=Caller(), **settings) as current:
            current.tallies["A"] = Tally()
            yield current
            run.ended = "finished"
        if current.problem:
            raise gr.Error(current.problem, print_exception=False)

    @staticmethod
    def _wait(current: Turn) -> None:
        for _ in current.wait():
            pass


def _logged(policy: str) -> str:
    """A policy as the log may show it."""
    try:
        return write(parse(policy))
    except ValueError:
        return "invalid"


def _check_kv(limits: Limits, chunk: Chunk) -> None:
    """Raise ValueError for a chunk whose KV cache exceeds the limit, where the GPU is."""
    run = Run(0)
    run.kv_bytes = chunk.kv_bytes
    if exceeded := limits.exceeded(run, 0.0, False):
        raise ValueError(exceeded[1])


def _scoring(model: VideoModel, longest: float) -> Callable[..., Generator[dict[str, Any], None, None]]:
    """What profiles the heads, where the model's GPU is."""

    def score(
        lines: list[str], chunks: int, threshold: float, seed: int, progress: Callable[[Chunk], Any]
    ) -> Generator[dict[str, Any], None, None]:
        yield profile_heads(model, lines, (seed,), chunks, threshold, progress=progress).report()

    return lend(score, lambda lines, chunks, *_: min(longest, 5 + len(lines) * chunks * model.chunk_seconds))


def _text(value: str, label: str) -> gr.Textbox:
    return gr.Textbox(value or None, label=label, visible=False)


def _number(value: float, label: str, precision: int | None = 0) -> gr.Number:
    return gr.Number(value, label=label, precision=precision, visible=False)
