"""Policies against each other on prompts x seeds: the work behind the Compare tab and its endpoint.

Streams of one prompt and seed take turns, chunk by chunk, on the same noise. The first policy is the reference.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from fkv import policies
from fkv.analysis.evaluate import EQUAL_DB, adherence, draws_world, held_out_scene
from fkv.analysis.measures import chunk_discontinuity, psnr
from fkv.comparison import interleave, speed_ratios
from fkv.models.base import VideoModel
from fkv.report import FPS_MEANING, chunk_record, device_name, frame_hash, rates
from fkv.stream import Chunk, Stream, check_prompt, check_seed
from fkv.studio.media.filmstrip import Filmstrip, filmstrip
from fkv.world import FPS
from fkv.world.captions import Scene, caption
from fkv.world.captions import parse as scene_of
from fkv.world.oracle import WORDS

from .errors import explain, free
from .live import WAIT, whole, words
from .sessions import Limits, Queue, Run
from .telemetry import stream_ended
from .zerogpu import chunk_seconds, lend

log = logging.getLogger(__name__)

BOUNDS = {"policies": (2, 8), "prompts": (1, 16), "seeds": (1, 8), "chunks per stream": (2, 60)}
MOST = 2000
"""Chunks of one comparison in all."""
STRIPS = 4
"""Prompts and seeds, the newest ones, of which there are pictures."""
MEASURES = ["fps_denoise", "fps_end_to_end", "ratio_denoise"]
"""Measured per chunk; a policy's figure is the median over all chunks."""
QUALITY = ["psnr_to_reference", "discontinuity", "adherence", *WORDS]
"""Measured per stream once it is complete; a policy's figure is the mean over streams."""

Record = dict[str, Any]
Play = Callable[[Sequence[str], str, int, int, int], Iterator[tuple[int, Chunk]]]
"""Policies, prompt, seed, chunks, chunks to warm up with -> which stream, and its next chunk, without latents."""


@dataclass(frozen=True)
class ComparisonPlan:
    """policies : as `fkv.policies.write` writes them. chunks : per stream."""

    policies: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    chunks: int

    @classmethod
    def from_form(cls, names: Any, prompts: Any, seeds: Any, chunks: Any, most: int = MOST) -> ComparisonPlan:
        """A plan from what the page holds: prompts one a line, seeds with commas. Raises ValueError with a sentence."""
        if not isinstance(names, (list, tuple)):
            raise ValueError("the policies must be a list, such as full and forcing-kv")
        plan = cls(
            tuple(dict.fromkeys(policies.write(policies.parse(words(name, "a policy").strip())) for name in names)),
            tuple(
                dict.fromkeys(check_prompt(line) for line in words(prompts, "the prompts").splitlines() if line.strip())
            ),
            tuple(dict.fromkeys(_seed(part) for part in words(seeds, "the seeds").replace(",", " ").split())),
            whole(chunks, "the number of chunks"),
        )
        counts = len(plan.policies), len(plan.prompts), len(plan.seeds), plan.chunks
        for (what, (least, greatest)), count in zip(BOUNDS.items(), counts):
            if not least <= count <= greatest:
                raise ValueError(f"a comparison takes {least} to {greatest} {what}, not {count}")
        if plan.total > most:
            raise ValueError(f"this comparison would take {plan.total:,} chunks in all; at most {most:,} are run here")
        return plan

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Prompt and seed of every run; each has a stream per policy."""
        return list(product(self.prompts, self.seeds))

    def where(self, number: int) -> str:
        """Which run the `number`th is."""
        return f"prompt and seed {number} of {len(self.runs)}" if len(self.runs) > 1 else f"seed {self.seeds[0]}"

    @property
    def total(self) -> int:
        """Chunks of all streams."""
        return len(self.runs) * len(self.policies) * self.chunks


@dataclass(frozen=True)
class Progress:
    """state : queued, running, done or error. done : chunks so far. records : of complete streams, then of those under way.
    strips : pictures of the newest runs."""

    state: str
    text: str
    done: int = 0
    records: tuple[Record, ...] = ()
    strips: tuple[Filmstrip, ...] = ()


def held_out_prompts(model: VideoModel, count: int = 2) -> list[str]:
    """Prompts that the model was not trained on; a model that does not draw the toy world has its own examples."""
    return (
        [caption(held_out_scene(i), held_out=True) for i in range(count)]
        if draws_world(model)
        else list(model.examples[:count])
    )


def player(model: VideoModel, limits: Limits) -> Play:
    """What steps the streams of one prompt and seed."""

    def play(names: Sequence[str], prompt: str, seed: int, chunks: int, warmup: int = 0) -> Iterator[tuple[int, Chunk]]:
        def streams() -> list[Stream]:
            return [Stream(model, policies.parse(name), prompt, seed) for name in names]

        for _ in interleave(streams(), warmup):
            pass
        for which, chunk in interleave(streams(), chunks):
            yield which, replace(chunk, latents=torch.empty(0))

    def seconds(names: Sequence[str], prompt: str, seed: int, chunks: int, warmup: int = 0) -> float:
        return min(limits.seconds, 5 + len(names) * (chunks + warmup) * chunk_seconds(model))

    return lend(play, seconds)


def work(
    model: VideoModel, play: Play, plan: ComparisonPlan, run: Run, queue: Queue, limits: Limits
) -> Iterator[Progress]:
    """Run a plan and yield how far it is after every chunk. Stopping `run` ends it there, with what there is.

    Closing the iterator frees the caches.
    """
    run.live, last = True, Progress("queued", "")
    began = turned = time.monotonic()
    try:
        with queue.join(run):
            while (place := queue.place(run, WAIT)) and not run.stopped:
                yield Progress("queued", f"Place {place} in the queue: this machine does one thing at a time.")
            turned = time.monotonic()
            for last in _measured(model, play, plan, run, limits):
                yield last
    except Exception as error:
        run.ended, text = explain(error, f"{last.done} of {plan.total} chunks")
        if run.ended == "failed":
            log.exception("a comparison failed")
            text = f"The comparison broke off after {last.done} of {plan.total} chunks: {type(error).__name__}."
        yield replace(last, state="error", text=text)
    finally:
        run.live = False
        free(model.device)
        stream_ended(
            ended=run.ended or "left",
            kind="compare",
            model=model.name,
            policies=plan.policies,
            seed=plan.seeds,
            asked=plan.total,
            chunks=last.done,
            bytes=0,
            waited=round(turned - began, 3),
            seconds=round(time.monotonic() - turned, 3),
            prompt=plan.prompts,
        )


def _measured(model: VideoModel, play: Play, plan: ComparisonPlan, run: Run, limits: Limits) -> Iterator[Progress]:
    began, done, records, strips = time.monotonic(), 0, [], ()
    yield Progress("running", f"Warming up {', '.join(plan.policies)}.")
    for number, (prompt, seed) in enumerate(plan.runs, 1):
        made: list[list[Chunk]] = [[] for _ in plan.policies]
        under_way: list[Record] = []
        earlier = strips[1 - STRIPS :]
        with closing(play(plan.policies, prompt, seed, plan.chunks, int(number == 1))) as chunks:
            for which, chunk in chunks:
                made[which].append(chunk)
                done += 1
                if done % len(made) == 0:
                    under_way = [record(policy, seed, own, made[0]) for policy, own in zip(plan.policies, made)]
                    strips = (*earlier, filmstrip(prompt, seed, dict(zip(plan.policies, made)), plan.chunks))
                known, at = (*records, *under_way), f"chunk {len(made[which])} of {plan.chunks}"
                yield Progress("running", f"{plan.policies[which]}, {at}, {plan.where(number)}.", done, known, strips)
                if reason := _ended(run, limits, made, began):
                    run.ended, why = reason
                    text = f"{why} after {done:,} of {plan.total:,} chunks; the figures are of those."
                    yield Progress("done", text, done, known, strips)
                    return
        scene = _scene(model, prompt)
        records += [known | quality(own, made[0], scene) for known, own in zip(under_way, made)]
        yield Progress("running", f"Measured {plan.where(number)}.", done, tuple(records), strips)
    run.ended = "finished"
    yield Progress("done", f"Finished: {len(records)} streams of {plan.chunks} chunks.", done, tuple(records), strips)


def _ended(run: Run, limits: Limits, made: list[list[Chunk]], began: float) -> tuple[str, str] | None:
    """Why a comparison must end, in a word and the beginning of a sentence; None while it may go on."""
    if run.stopped:
        return "stopped", "Cancelled"
    if time.monotonic() - began > limits.seconds:
        return "time limit", f"Ended, because a run lasts at most {limits.seconds:g} seconds here,"
    if sum(own[-1].kv_bytes for own in made if own) > limits.kv:
        return "kv limit", f"Ended, because a run may hold {limits.kv / 1e6:,.0f} MB of keys and values here,"
    return None


def _scene(model: VideoModel, prompt: str) -> Scene | None:
    """What the oracle should find; None where it cannot read the model, or the prompt names no whole scene."""
    try:
        return scene_of(prompt) if draws_world(model) else None
    except ValueError:
        return None


# Numbers.


def record(policy: str, seed: int, own: Sequence[Chunk], reference: Sequence[Chunk]) -> Record:
    """What is known of a stream while it runs. ratio_denoise : the reference's seconds / its own, see `fkv.comparison`."""
    chunks = [
        chunk_record(c) | rates([c]) | {"ratio_denoise": ratio} for c, ratio in zip(own, speed_ratios(reference, own))
    ]
    return {
        "policy": policy,
        "prompt": own[0].prompt,
        "seed": seed,
        "kv_bytes_peak": max(c.kv_bytes for c in own),
        "chunks": chunks,
    }


def quality(own: Sequence[Chunk], reference: Sequence[Chunk], scene: Scene | None) -> Record:
    """What a complete stream shows. psnr_to_reference : dB, None for the reference itself, `EQUAL_DB` stands for equal.

    adherence : mean share of `WORDS` that the oracle finds at the end, each of which has its own figure too; None without a scene.
    """
    video, other = (np.concatenate([chunk.video for chunk in chunks]) for chunks in (own, reference))
    seconds = len(video) / FPS
    found = adherence(video, scene, seconds)[f"{seconds:g}"] if scene else dict.fromkeys(WORDS)
    return {
        "psnr_to_reference": None if own is reference else min(EQUAL_DB, psnr(video, other)),
        "discontinuity": chunk_discontinuity(video, len(own)),
        "adherence": sum(found.values()) / len(found) if scene else None,
        **found,
        "frames_sha256": frame_hash(own),
    }


def table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per policy: medians over chunks (`MEASURES`), kv_bytes_peak, means over complete streams (`QUALITY`), streams."""
    streams = pd.DataFrame(records).reindex(columns=["policy", "kv_bytes_peak", *QUALITY])
    by_policy = streams.astype(dict.fromkeys(QUALITY, float)).groupby("policy", sort=False)
    chunks = pd.DataFrame([chunk | {"policy": stream["policy"]} for stream in records for chunk in stream["chunks"]])
    medians = chunks.groupby("policy", sort=False)[MEASURES].median()
    return (
        medians.join(by_policy["kv_bytes_peak"].max()).join(by_policy[QUALITY].mean()).assign(streams=by_policy.size())
    )


def report(
    model: VideoModel, plan: ComparisonPlan, records: Sequence[Record], device: torch.device, ended: str
) -> dict[str, Any]:
    """Everything about a comparison that has some records, ready for JSON: figures per policy, then every stream and chunk."""
    rows = table(records).astype(object)
    return {
        "model": model.name,
        "device": device_name(device),
        "torch": torch.__version__,
        "ended": ended,
        "reference": plan.policies[0],
        "prompts": list(plan.prompts),
        "seeds": list(plan.seeds),
        "chunks": plan.chunks,
        "meaning": FPS_MEANING
        | {
            "/".join(MEASURES): "medians over chunks",
            "ratio_denoise": "seconds of the reference / of the policy, text and decoding excluded",
            "kv_bytes_peak": "the most bytes of K and V held while a chunk attended",
            "psnr_to_reference": f"dB, mean over streams; {EQUAL_DB:g} stands for equal",
            "discontinuity": "1: moves evenly across chunks",
            "adherence": f"share of {', '.join(WORDS)} that the oracle of the toy world finds at the end, mean over streams",
        },
        "policies": rows.where(rows.notna(), None).to_dict("index"),
        "streams": list(records),
    }


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"seeds are whole numbers with commas between them, as in 0, 1; {text!r:.40} is none")
    return check_seed(int(text))
