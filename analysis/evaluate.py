"""Does a policy show what the prompt says, for how long, how fast: prompts x seeds x policies, read by the toy world's oracle.

python -m fkv eval --policy full,forcing-kv --prompts 8 --seeds 2 --seconds 60 --out runs/eval
"""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.frames import to_frames
from fkv.parallel.ray_map import over_ray
from fkv.policies import parse, write
from fkv.report import FPS_MEANING, device_name, rates
from fkv.storyboard import SetPrompt, Storyboard, write_change
from fkv.storyboard import write as write_story
from fkv.stream import Chunk, Stream
from fkv.training.data import to_pixels
from fkv.world import FPS, HEIGHT, WIDTH, oracle
from fkv.world.captions import COLOURS, SCENES, Scene, caption, sample_scene
from fkv.world.captions import parse as parse_caption
from fkv.world.render import GENES, render

from .measures import chunk_discontinuity, drift, flicker, psnr, ssim
from .profile import checkpoint_hash

HELD_OUT_SEEDS = 2**40
"""Scenes of the evaluation come from seeds above this, those of training from far below."""
MARKS = (5, 30, 60)
"""Seconds at which adherence is read, over the `WINDOW_SECONDS` before."""
WINDOW_SECONDS = 5
SWITCH_AFTER, SWITCH_WITHIN = 7, 3
CHUNK = 12
"""Video frames per chunk."""
EQUAL_DB = 100.0
REFERENCE = "full"
NO_STORY = Storyboard()
LIMITS = {"prompts": (1, 1000), "seeds": (1, 1000), "seconds": (2, 3600), "workers": (1, 64)}
KEY = ("model", "checkpoint", "precision", "policy", "prompt", "seed", "seconds", "story")
"""What tells records apart."""
COLUMNS = {
    "discontinuity": "chunk discontinuity",
    "drift.colours": "drift of colours",
    "flicker": "flicker",
    "psnr_to_full": "PSNR to full (dB)",
    "switch.success": "switch success",
    "fps_denoise": "fps_denoise",
    "fps_end_to_end": "fps_end_to_end",
    "kv_bytes_peak": "peak KV (bytes)",
}
"""Columns of the table and what they are called there."""
Record = dict[str, Any]


def held_out_scene(index: int) -> Scene:
    """The scene of evaluation prompt `index`. Its caption's wording was never trained on; its words were."""
    return sample_scene(random.Random(HELD_OUT_SEEDS + index))


def switched_scene(index: int) -> tuple[Scene, str]:
    """What prompt `index` is changed into, and what changes: its first thing's colour, or the place for odd ones."""
    scene, rng = held_out_scene(index), random.Random(HELD_OUT_SEEDS + index)
    if index % 2:
        return replace(scene, place=rng.choice([place for place in SCENES if place != scene.place])), "place"
    used = [thing.colour for thing in scene.things]
    first = replace(scene.things[0], colour=rng.choice([colour for colour in COLOURS if colour not in used]))
    return replace(scene, things=(first, *scene.things[1:])), "colour"


def marks(seconds: float) -> list[float]:
    """When adherence is read: at `MARKS` and at the end."""
    return sorted({*(mark for mark in MARKS if mark < seconds), seconds})


def adherence(video: np.ndarray, scene: Scene, seconds: float) -> dict[str, dict[str, float]]:
    """Per mark (as text, in seconds) and word, the share of what `scene` says that the oracle finds in the window before."""
    windows = {
        f"{mark:g}": video[max(0, round((mark - WINDOW_SECONDS) * FPS)) : round(mark * FPS)] for mark in marks(seconds)
    }
    return {mark: oracle.agreement(scene, oracle.read(window)) for mark, window in windows.items()}


def adherence_by_scene(chunks: Sequence[Chunk]) -> dict[str, dict[str, float]]:
    """Measure adherence at the end of every prompt of a stream, over `WINDOW_SECONDS` of it at most.

    Args:
        chunks: Decoded chunks of one stream, whose prompts are captions of the toy world.

    Returns:
        The end of each prompt in seconds, as text -> the share of what it says that the oracle reads, by word.
    """
    begins = [i for i, chunk in enumerate(chunks) if i == 0 or chunk.prompt != chunks[i - 1].prompt]
    found = {}
    for begin, end in zip(begins, [*begins[1:], len(chunks)], strict=True):
        first = max(begin, end - math.ceil(WINDOW_SECONDS * FPS / CHUNK))
        window = np.concatenate([chunk.video for chunk in chunks[first:end]])
        found[f"{end * CHUNK / FPS:g}"] = oracle.agreement(parse_caption(chunks[begin].prompt), oracle.read(window))
    return found


def chunks_until(word: str, scene: Scene, videos: Sequence[np.ndarray]) -> int | None:
    """After how many of these chunks the new colour of the first thing, or the new place, is there; None if it never is."""
    for count, video in enumerate(videos, 1):
        reading = oracle.read(video)
        if (
            reading.place == scene.place
            if word == "place"
            else scene.things[0].colour in [thing.colour for thing in reading.things]
        ):
            return count
    return None


def run_stream(
    model: VideoModel, policy: str, prompt: int, seed: int, seconds: float, story: Storyboard = NO_STORY
) -> list[Chunk]:
    """The chunks of `seconds` of held-out prompt `prompt`, or of a storyboard's, without their latents."""
    text = story.opening or caption(held_out_scene(prompt), held_out=True)
    stream = Stream(model, parse(policy), text, seed)
    chunks = []
    for index in range(math.ceil(seconds * FPS / CHUNK)):
        for sentence in story.apply(index, {policy: stream}):
            tqdm.write(f"chunk {index + 1}: {sentence}", file=sys.stderr)
        chunks.append(replace(stream.step(), latents=torch.empty(0)))
    return chunks


def run_switch(model: VideoModel, policy: str, prompt: int, seed: int) -> dict[str, Any]:
    """Change the prompt after `SWITCH_AFTER` chunks; success is when the change, not there before, is seen in `SWITCH_WITHIN` more."""
    scene, word = switched_scene(prompt)
    stream = Stream(model, parse(policy), caption(held_out_scene(prompt), held_out=True), seed)
    before = [stream.step().video for _ in range(SWITCH_AFTER)]
    stream.set_prompt(caption(scene, held_out=True))
    count = chunks_until(word, scene, [stream.step().video for _ in range(SWITCH_WITHIN)])
    already = chunks_until(word, scene, before[-1:]) is not None
    return {"word": word, "success": float(count is not None and not already), "chunks": None if already else count}


def measure(
    chunks: Sequence[Chunk], scene: Scene | None, seconds: float, reference: np.ndarray | None = None
) -> Record:
    """Everything measured of one stream; `reference` is the video of the full cache from the same seed.

    scene : what the video should show, None for what the prompts of the chunks say.
    psnr_to_full : in dB, `EQUAL_DB` stands for equal. fps_denoise, fps_end_to_end : see `fkv.report.FPS_MEANING`.
    kv_bytes_peak : the most K and V held while a chunk attended.
    """
    video = np.concatenate([chunk.video for chunk in chunks])
    return {
        "adherence": adherence(video, scene, seconds) if scene else adherence_by_scene(chunks),
        **measure_motion(video, len(chunks)),
        "psnr_to_full": None if reference is None else min(EQUAL_DB, psnr(video, reference)),
        "ssim_to_full": None if reference is None else ssim(video, reference),
        **rates(chunks),
        "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
    }


def measure_motion(video: np.ndarray, chunks: int) -> Record:
    """What is measured of a video of `chunks` chunks without a prompt or a reference."""
    return {
        "discontinuity": chunk_discontinuity(video, chunks),
        "drift": asdict(drift(video, FPS, WINDOW_SECONDS)),
        "flicker": flicker(video),
    }


def measure_renders(prompts: int, seconds: float) -> dict[str, float]:
    """Means of `measure_motion` over renders of the held-out scenes: what a perfect stream of this world would get."""
    chunks = math.ceil(seconds * FPS / CHUNK)
    scenes = [(held_out_scene(index), random.Random(index)) for index in range(prompts)]
    videos = (render(scene, range(chunks * CHUNK), [rng.random() for _ in range(GENES)]) for scene, rng in scenes)
    return pd.json_normalize([measure_motion(video, chunks) for video in videos]).mean().to_dict()


def _records(
    model: VideoModel,
    policies: Sequence[str],
    pending: Sequence[str],
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
) -> Iterator[Record]:
    """One record per pending policy. The full cache comes first, as the reference of the others, even if it is recorded."""
    scene = None if story.cues else held_out_scene(prompt)
    reference = None
    for policy in sorted(policies, key=lambda policy: policy != REFERENCE):
        if policy in pending or policy == REFERENCE:
            chunks = run_stream(model, policy, prompt, seed, seconds, story)
        if policy in pending:
            names = dict(zip(KEY, (*_identity(model), policy, prompt, seed, seconds, write_story(story)), strict=True))
            if not story.cues:
                del names["story"]
            device = {"caption": chunks[0].prompt, "device": device_name(model.device)}
            yield (
                names
                | device
                | measure(chunks, scene, seconds, reference)
                | ({} if story.cues else {"switch": run_switch(model, policy, prompt, seed)})
            )
        if policy == REFERENCE:
            reference = np.concatenate([chunk.video for chunk in chunks])


def _identity(model: VideoModel) -> tuple[str, ...]:
    return model.name, checkpoint_hash(model.weights), model.precision


@lru_cache(maxsize=1)
def _load(name: str, device: str, precision: str | None) -> VideoModel:
    torch.set_num_threads(1)
    return registry.load(name, device, precision=precision)


def _job(name: str, device: str, precision: str | None, *arguments: Any) -> list[Record]:
    return list(_records(_load(name, device, precision), *arguments))


def evaluate(
    policies: Sequence[str],
    prompts: int = 8,
    seeds: int = 1,
    seconds: float = 60,
    model: VideoModel | str = "tiny",
    device: str = "cpu",
    precision: str | None = None,
    out: str | Path | None = None,
    workers: int = 1,
    ray: str | None = None,
    story: Storyboard = NO_STORY,
) -> list[Record]:
    """Run every policy on held-out prompts 0..prompts-1 and seeds 0..seeds-1; one record per stream, see `measure`.

    policies : as `fkv.policies.parse` reads them; the others are compared with "full" where it is among them.
    precision : of a model that is named.
    out : a folder; finished records are appended to its records.jsonl, and those that are there are not run again.
    workers : processes, each with one thread; speeds measured with more than one are those of a shared machine.
    ray : instead, the address of a Ray cluster, one stream at a time per device; see `fkv.parallel.ray_map`.
    story : prompts of the toy world, applied to every stream; adherence is then read at the end of each, and switches
    are not measured. A storyboard that begins with a prompt leaves one prompt to run.
    Raises ValueError with a sentence for the user when a parameter is out of range or the model cannot draw the toy world.
    """
    check_story(story, prompts)
    for name, value in (("prompts", prompts), ("seeds", seeds), ("seconds", seconds), ("workers", workers)):
        least, most = LIMITS[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int if name != "seconds" else (int, float))
            or not least <= value <= most
        ):
            raise ValueError(
                f"{name} must be a {'whole ' if name != 'seconds' else ''}number from {least} to {most}, not {value!r}"
            )
    if not policies:
        raise ValueError("name at least one policy to evaluate, as in --policy full,forcing-kv")
    if (workers > 1 or ray) and not isinstance(model, str):
        raise ValueError("several processes need the model by name, so that each can load it")
    policies = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    if isinstance(model, str) and registry.entry(model).release:
        raise _not_readable(model)
    loaded = registry.load(model, device, precision=precision) if isinstance(model, str) else model
    check_world(loaded)
    file = Path(out) / "records.jsonl" if out is not None else None
    own = _identity(loaded)
    finished = {tuple(record.get(name) for name in KEY): record for record in (_finished(file) if file else [])}
    records, jobs = [], []
    for run in product(range(prompts), range(seeds)):
        there = {policy: finished.get((*own, policy, *run, seconds, write_story(story) or None)) for policy in policies}
        pending = [policy for policy, record in there.items() if record is None or _lacks_reference(record, policies)]
        records += [record for policy, record in there.items() if policy not in pending]
        jobs += [(policies, pending, *run, seconds, story)] if pending else []
    with tqdm(total=len(policies) * prompts * seeds, initial=len(records), unit="stream", file=sys.stderr) as bar:
        for record in _run(loaded, (model, device, precision), jobs, workers, ray):
            records.append(record)
            if file:
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(record) + "\n")
            bar.update()
    return sorted(records, key=lambda record: (policies.index(record["policy"]), record["prompt"], record["seed"]))


def _run(
    loaded: VideoModel,
    asked: tuple[VideoModel | str, str, str | None],
    jobs: list[tuple],
    workers: int,
    ray: str | None,
) -> Iterator[Record]:
    if ray:
        _, device, _ = asked
        for made in over_ray(_job, [(*asked, *job) for job in jobs], ray, device):
            yield from made
        return
    if workers == 1:
        for job in jobs:
            yield from _records(loaded, *job)
        return
    unmoved = (
        signal.signal,
        (signal.SIGINT, signal.SIG_IGN),
    )  # Ctrl-C reaches all; this process says what there is to say
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), *unmoved) as pool:
        for future in as_completed([pool.submit(_job, *asked, *job) for job in jobs]):
            yield from future.result()


def _lacks_reference(record: Record, policies: Sequence[str]) -> bool:
    return record["psnr_to_full"] is None and record["policy"] != REFERENCE and REFERENCE in policies


def _finished(file: Path) -> list[Record]:
    """The records in a file; a last line that was cut off is taken out of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} holds a line that is no record ({error}); remove the line or choose another folder"
        ) from None


def draws_world(model: VideoModel) -> bool:
    """Whether the model decodes video of the toy world's size, so that the oracle can read it."""
    chunk = model.frames_per_chunk * model.video_frames_per_latent
    return model.decoder is not None and model.latent[1:] == (HEIGHT // 8, WIDTH // 8) and chunk == CHUNK


def check_world(model: VideoModel) -> None:
    """Raises ValueError unless the model draws the toy world."""
    if not draws_world(model):
        raise _not_readable(model.name)


def check_story(story: Storyboard, prompts: int) -> None:
    """Check that the oracle can measure a storyboard.

    Args:
        story: Its prompts must be captions of the toy world.
        prompts: How many prompts the evaluation runs.

    Raises:
        ValueError: It changes more than prompts, or has a prompt that is no caption, or leaves no other prompt to run.
    """
    for cue in story.cues:
        line = f"{cue.chunk + 1}: {write_change(cue.change)}"
        if not isinstance(cue.change, SetPrompt):
            raise ValueError(f"an evaluation changes prompts only; leave out {line!r} of the storyboard")
        try:
            parse_caption(cue.change.prompt)
        except ValueError as error:
            raise ValueError(f"the oracle cannot read a prompt of the storyboard: {error}") from None
    if story.opening is not None and prompts != 1:
        raise ValueError(f"the storyboard begins with a prompt, so prompts must be 1, not {prompts}")


def _not_readable(model: str) -> ValueError:
    return ValueError(
        f"model {model!r} does not draw the toy world, and the oracle reads nothing else; evaluate the tiny model"
    )


def oracle_accuracy(model: VideoModel, samples: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """What the oracle itself gets right, on renders and on the codec's reconstructions of them: the most adherence can be."""

    @torch.inference_mode()
    def through(video: np.ndarray) -> np.ndarray:
        codec = model.decoder.codec
        parameter = next(codec.parameters())
        return to_frames(codec.decode(codec.encode(to_pixels(video)[None].to(parameter)))[0][0])

    return {"renders": oracle.accuracy(samples, seed), "codec": oracle.accuracy(samples, seed, through=through)}


# Tables.


def summary(records: Sequence[Record]) -> pd.DataFrame:
    """Means per policy, in the order of first appearance; columns as `pandas.json_normalize` names them, and `streams`."""
    streams = pd.json_normalize(list(records)).groupby("policy", sort=False)
    means = streams.mean(numeric_only=True).drop(columns=["prompt", "seed", "seconds"])
    return means.assign(streams=streams.size())


def over_time(records: Sequence[Record]) -> pd.DataFrame:
    """One row per record, mark and word: policy, seconds, word, adherence."""
    rows = [
        {"policy": record["policy"], "seconds": float(mark), "word": word, "adherence": share}
        for record in records
        for mark, words in record["adherence"].items()
        for word, share in words.items()
    ]
    return pd.DataFrame(rows)


def table(records: Sequence[Record]) -> str:
    """A table for people: mean adherence at each mark, then the measures, one column per policy."""
    seen = over_time(records).pivot_table(index="policy", columns="seconds", values="adherence", sort=False)
    seen.columns = [f"adherence at {mark:g} s" for mark in seen.columns]
    means = summary(records)
    measures = means.reindex(columns=list(COLUMNS)).rename(columns=COLUMNS)
    rows = seen.join(measures).join(means["streams"]).T
    return rows.to_string(float_format=lambda x: f"{x:,.3f}" if abs(x) < 1000 else f"{x:,.0f}", na_rep="-")


def report(records: Sequence[Record], **more: Any) -> dict[str, Any]:
    """Means per policy, every record, and whatever else is given; ready for JSON."""
    means = summary(records).astype(object)
    means = means.where(means.notna(), None)
    return {"policies": means.to_dict("index"), "fps_meaning": FPS_MEANING, **more, "records": list(records)}


def contact_sheet(
    model: VideoModel,
    policy: str,
    path: str | Path,
    prompts: int = 6,
    seconds: float = 60,
    columns: int = 8,
    story: Storyboard = NO_STORY,
) -> None:
    """Write a PNG of held-out prompts 0..prompts-1 with seeds 0..prompts-1, none picked: frames over time below each prompt.

    Raises ValueError when the model cannot draw the toy world or a number is out of range.
    """
    from .evaluation_plots import filmstrips

    check_world(model)
    if not 1 <= prompts <= 100 or not 2 <= columns <= 32 or not 2 <= seconds <= 3600:
        raise ValueError(
            f"a contact sheet shows 1-100 prompts in 2-32 columns over 2-3600 seconds, not {prompts}, {columns}, {seconds}"
        )
    titles, strips = [], []
    for index in tqdm(range(prompts), unit="stream", file=sys.stderr):
        chunks = run_stream(model, policy, index, index, seconds, story)
        video = np.concatenate([chunk.video for chunk in chunks])
        shown = np.linspace(0, len(video) - 1, columns).round().astype(int)
        strips.append(video[shown])
        titles.append(f"{chunks[0].prompt}   (seed {index})")
    filmstrips(titles, strips, shown / FPS, path)
