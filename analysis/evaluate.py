"""Evaluate policies on prompts and seeds: prompt adherence over time, read by the toy world's oracle, and speed.

python -m fkv eval --policy full,forcing-kv --prompts 8 --seeds 2 --seconds 60 --out runs/eval
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fkv.batch.jobs import Job
from fkv.batch.jobs import Path as JobPath
from fkv.batch.shared import counts, generate
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.frames import to_frames
from fkv.parallel.ray_map import over_ray
from fkv.policies import parse, write
from fkv.report import FPS_MEANING, device_name, rates, without_speeds
from fkv.storyboard import Cue, SetPrompt, Storyboard, write_change
from fkv.storyboard import write as write_story
from fkv.stream import Chunk, Stream
from fkv.training.data import to_pixels
from fkv.world import FPS, HEIGHT, WIDTH, oracle, shots, witness
from fkv.world.captions import COLOURS, SCENES, Scene, caption, sample_scene
from fkv.world.captions import parse as parse_caption
from fkv.world.render import GENES, render

from .jobs import Record, append_record, identity_of, load_once, over_processes, read_records
from .measures import chunk_discontinuity, drift, flicker, psnr, ssim, video_of

# Scenes of the evaluation come from seeds above this, those of training from far below.
HELD_OUT_SEEDS = 2**40
# Seconds at which adherence is read, over the `WINDOW_SECONDS` before.
MARKS = (5, 30, 60)
WINDOW_SECONDS = 5
# Chunks before the prompt is switched, and chunks within which the change must be seen.
SWITCH_AFTER = 7
SWITCH_WITHIN = 3
# Video frames per chunk.
CHUNK = 12
# PSNR that stands for equal videos, dB.
EQUAL_DB = 100.0
REFERENCE = "full"
NO_STORY = Storyboard()
LIMITS = {"prompts": (1, 1000), "seeds": (1, 1000), "seconds": (2, 3600), "workers": (1, 64)}
# Fields that identify a record.
KEY = ("model", "checkpoint", "precision", "policy", "prompt", "seed", "seconds", "story", "steps", "timing")
# Columns of the printed table and their headings.
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


def held_out_scene(index: int) -> Scene:
    """Return the scene of evaluation prompt `index`; training saw the words of its caption, not its wording."""
    return sample_scene(random.Random(HELD_OUT_SEEDS + index))


def held_out_shot(index: int) -> str:
    """Return the caption of a shot of the memory world, as evaluation prompt `index`."""
    return shots.caption(shots.sample_shot(random.Random(HELD_OUT_SEEDS + index)), held_out=True)


def switched_scene(index: int) -> tuple[Scene, str]:
    """Return the scene that prompt `index` is switched to, and what changes: the first thing's colour, or the place."""
    scene = held_out_scene(index)
    rng = random.Random(HELD_OUT_SEEDS + index)
    if index % 2:
        return replace(scene, place=rng.choice([place for place in SCENES if place != scene.place])), "place"
    used = [thing.colour for thing in scene.things]
    first = replace(scene.things[0], colour=rng.choice([colour for colour in COLOURS if colour not in used]))
    return replace(scene, things=(first, *scene.things[1:])), "colour"


def marks(seconds: float) -> list[float]:
    """Return the seconds at which adherence is read: `MARKS` within the stream, and its end."""
    return sorted({*(mark for mark in MARKS if mark < seconds), seconds})


def adherence(video: np.ndarray, scene: Scene, seconds: float, events: bool = False) -> dict[str, dict[str, float]]:
    """Measure how much of a scene the oracle finds in the seconds before each mark.

    Args:
        video: uint8 [T, H, W, 3].
        scene: The scene that the prompt describes.
        seconds: Length of the video.
        events: Whether things may reverse at chunk borders, as in a model of the memory world.

    Returns:
        For each of `marks` (as text) and each word of the scene, the share that is found.
    """
    found = {}
    for mark in marks(seconds):
        start = max(0, round((mark - WINDOW_SECONDS) * FPS))
        found[f"{mark:g}"] = oracle.agreement(scene, _read(video[start : round(mark * FPS)], start, events))
    return found


def _read(frames: np.ndarray, first: int, events: bool) -> oracle.Reading:
    """Read frames that begin with the stream's video frame `first`."""
    return witness.read(frames, first) if events else oracle.read(frames)


def adherence_by_scene(chunks: Sequence[Chunk], events: bool = False) -> dict[str, dict[str, float]]:
    """Measure adherence at the end of every prompt of a stream, over `WINDOW_SECONDS` of it at most.

    Args:
        chunks: Decoded chunks of one stream, whose prompts are captions of the toy world.
        events: As in `adherence`.

    Returns:
        The end of each prompt in seconds, as text -> the share of what it says that the oracle reads, by word.
    """
    begins = [i for i, chunk in enumerate(chunks) if i == 0 or chunk.prompt != chunks[i - 1].prompt]
    found = {}
    for begin, end in zip(begins, [*begins[1:], len(chunks)], strict=True):
        first = max(begin, end - math.ceil(WINDOW_SECONDS * FPS / CHUNK))
        reading = _read(video_of(chunks[first:end]), first * CHUNK, events)
        found[f"{end * CHUNK / FPS:g}"] = oracle.agreement(parse_caption(chunks[begin].prompt), reading)
    return found


def chunks_until(word: str, scene: Scene, videos: Sequence[np.ndarray]) -> int | None:
    """Return after how many chunks the new place, or the new colour of the first thing, is seen; None if never."""
    for count, video in enumerate(videos, 1):
        reading = oracle.read(video)
        colours = [thing.colour for thing in reading.things]
        if reading.place == scene.place if word == "place" else scene.things[0].colour in colours:
            return count
    return None


def run_stream(
    model: VideoModel,
    policy: str,
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
    text: str | None = None,
) -> list[Chunk]:
    """Stream `seconds` of a prompt and return the chunks, without their latents.

    The prompt is the storyboard's opening, else `text`, else the held-out one of number `prompt`.
    """
    text = story.opening or text or caption(held_out_scene(prompt), held_out=True)
    return _stream(model, policy, text, seed, chunks_of(seconds), story)


def chunks_of(seconds: float) -> int:
    """Return how many chunks have `seconds` of video."""
    return math.ceil(seconds * FPS / CHUNK)


def _stream(model: VideoModel, policy: str, text: str, seed: int, count: int, story: Storyboard) -> list[Chunk]:
    stream = Stream(model, parse(policy), text, seed)
    chunks = []
    for index in range(count):
        for sentence in story.apply(index, {policy: stream}):
            tqdm.write(f"chunk {index + 1}: {sentence}", file=sys.stderr)
        chunks.append(replace(stream.step(), latents=torch.empty(0)))
    return chunks


def switch_story(prompt: int) -> Storyboard:
    """Return the change of prompt `prompt` after `SWITCH_AFTER` chunks."""
    scene, _ = switched_scene(prompt)
    return Storyboard((Cue(SWITCH_AFTER, SetPrompt(caption(scene, held_out=True))),))


def run_switch(model: VideoModel, policy: str, prompt: int, seed: int) -> dict[str, Any]:
    """Switch the prompt after `SWITCH_AFTER` chunks, and measure as `measure_switch`."""
    text = caption(held_out_scene(prompt), held_out=True)
    chunks = _stream(model, policy, text, seed, SWITCH_AFTER + SWITCH_WITHIN, switch_story(prompt))
    return measure_switch(chunks, prompt)


def measure_switch(chunks: Sequence[Chunk], prompt: int) -> dict[str, Any]:
    """Measure a stream along `switch_story`.

    It is a success if the change, not seen before, is seen within `SWITCH_WITHIN` chunks.
    """
    scene, word = switched_scene(prompt)
    videos = [video_of([chunk]) for chunk in chunks]
    count = chunks_until(word, scene, videos[SWITCH_AFTER:])
    already = chunks_until(word, scene, videos[SWITCH_AFTER - 1 : SWITCH_AFTER]) is not None
    return {"word": word, "success": float(count is not None and not already), "chunks": None if already else count}


def measure(
    chunks: Sequence[Chunk],
    scene: Scene | None,
    seconds: float,
    reference: np.ndarray | None = None,
    events: bool = False,
) -> Record:
    """Measure one stream.

    Args:
        chunks: The chunks of the stream.
        scene: The scene that the video should show; None for the scenes that the prompts of the chunks describe.
        seconds: Length of the stream.
        reference: The video of the full cache from the same seed, if there is one.
        events: As in `adherence`.

    Returns:
        adherence, the measures of `measure_motion`, psnr_to_full (dB, `EQUAL_DB` for equal videos) and ssim_to_full,
        fps_denoise and fps_end_to_end (see `fkv.report.FPS_MEANING`), and kv_bytes_peak, the most bytes of K and V
        cached while a chunk attended.
    """
    video = video_of(chunks)
    return {
        "adherence": adherence(video, scene, seconds, events) if scene else adherence_by_scene(chunks, events),
        **measure_motion(video, len(chunks)),
        "psnr_to_full": None if reference is None else min(EQUAL_DB, psnr(video, reference)),
        "ssim_to_full": None if reference is None else ssim(video, reference),
        **rates(chunks),
        "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
    }


def measure_motion(video: np.ndarray, chunks: int) -> Record:
    """Measure a video of `chunks` chunks without a prompt or a reference."""
    return {
        "discontinuity": chunk_discontinuity(video, chunks),
        "drift": asdict(drift(video, FPS, WINDOW_SECONDS)),
        "flicker": flicker(video),
    }


def measure_renders(prompts: int, seconds: float) -> dict[str, float]:
    """Average `measure_motion` over renders of the held-out scenes: the figures of a perfect stream of this world."""
    chunks = chunks_of(seconds)
    videos = (rendered(held_out_scene(index), chunks, index) for index in range(prompts))
    return pd.json_normalize([measure_motion(video, chunks) for video in videos]).mean().to_dict()


def paths_of(
    model: VideoModel,
    policies: Sequence[str],
    pending: Sequence[str],
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
) -> dict[tuple[str, bool], JobPath]:
    """Return the streams behind the records of a prompt and a seed, by policy and whether they are switched."""
    text = story.opening or caption(held_out_scene(prompt), held_out=True)
    needed = [policy for policy in policies if policy in pending or policy == REFERENCE]
    wanted = {(policy, False): (chunks_of(seconds), story) for policy in needed}
    if not story.cues:
        switch = (SWITCH_AFTER + SWITCH_WITHIN, switch_story(prompt))
        wanted |= {(policy, True): switch for policy in pending}
    return {
        (policy, switched): JobPath.along(
            Job(f"stream-{number}", text, "", policy, seed, count), text, changes, count, model
        )
        for number, ((policy, switched), (count, changes)) in enumerate(wanted.items())
    }


def _at_once(model: VideoModel, paths: dict[tuple[str, bool], JobPath]) -> dict[tuple[str, bool], list[Chunk]]:
    """Generate streams, what they have in common once, and return their chunks without latents."""
    made: dict[tuple[str, bool], list[Chunk]] = {key: [] for key in paths}
    keys = list(paths)

    def say(sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    for which, chunk in generate(model, list(paths.values()), say):
        made[keys[which]].append(replace(chunk, latents=torch.empty(0)))
    return made


def rendered(scene: Scene, chunks: int, seed: int) -> np.ndarray:
    """Return a perfect video of a scene, drawn and not generated, uint8 [T, H, W, 3]; what it leaves open is random."""
    rng = random.Random(seed)
    return render(scene, range(chunks * CHUNK), [rng.random() for _ in range(GENES)])


def _records(
    model: VideoModel,
    policies: Sequence[str],
    pending: Sequence[str],
    prompt: int,
    seed: int,
    seconds: float,
    story: Storyboard = NO_STORY,
    shared: bool = False,
) -> Iterator[Record]:
    """Yield one record per pending policy; the full cache streams first, as reference, even if it is not pending."""
    scene = None if story.cues else held_out_scene(prompt)
    reference = None
    made = _at_once(model, paths_of(model, policies, pending, prompt, seed, seconds, story)) if shared else {}
    for policy in sorted(policies, key=lambda policy: policy != REFERENCE):
        if policy in pending or policy == REFERENCE:
            chunks = made.pop((policy, False), None) or run_stream(model, policy, prompt, seed, seconds, story)
        if policy in pending:
            names = dict(
                zip(KEY[:-2], (*identity_of(model), policy, prompt, seed, seconds, write_story(story)), strict=True)
            )
            if not story.cues:
                del names["story"]
            device = {"caption": chunks[0].prompt, "device": device_name(model.device)}
            measured = measure(chunks, scene, seconds, reference, model.transformer.events)
            if not story.cues:
                switched = made.pop((policy, True), None)
                measured["switch"] = (
                    measure_switch(switched, prompt) if switched else run_switch(model, policy, prompt, seed)
                )
            yield names | device | (without_speeds(measured) | {"timing": "shared"} if shared else measured)
        if policy == REFERENCE:
            reference = video_of(chunks)


def _job(name: str, device: str, precision: str | None, steps: int | None, *arguments: Any) -> list[Record]:
    model = load_once(name, device, precision)
    return list(_records(model if steps is None else model.with_steps(steps), *arguments))


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
    steps: int | None = None,
    shared: bool = False,
) -> list[Record]:
    """Run every policy on held-out prompts 0..prompts-1 and seeds 0..seeds-1.

    Args:
        policies: As `fkv.policies.parse` reads them; the others are compared with "full" where it is among them.
        prompts: Number of prompts.
        seeds: Number of seeds for each prompt.
        seconds: Length of each stream.
        model: The model, or its name.
        device: Device of a named model.
        precision: Precision of a named model.
        out: Folder whose records.jsonl finished records are appended to; records found there are not run again.
        workers: Processes, each with one thread; with more than one, speeds are those of a shared machine.
        ray: Address of a Ray cluster to use instead, one stream at a time per device; see `fkv.parallel.ray_map`.
        story: Prompts of the toy world, applied to every stream; adherence is then read at the end of each, and
            switches are not measured. A storyboard that begins with a prompt leaves one prompt to run.
        steps: Denoising steps, by default those of the model.
        shared: Compute once what the streams of a prompt and a seed have in common: the same frames sooner, and
            records without speeds.

    Returns:
        One record per stream, see `measure`.

    Raises:
        ValueError: A parameter is out of range, or the model does not generate the toy world.
    """
    check_story(story, prompts)
    for name, value in (("prompts", prompts), ("seeds", seeds), ("seconds", seconds), ("workers", workers)):
        _check_limit(name, value)
    if not policies:
        raise ValueError("name at least one policy to evaluate, as in --policy full,forcing-kv")
    if (workers > 1 or ray) and not isinstance(model, str):
        raise ValueError("several processes need the model by name, so that each can load it")
    policies = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    if isinstance(model, str) and registry.entry(model).release:
        raise _not_readable(model)
    loaded = registry.load(model, device, precision=precision) if isinstance(model, str) else model
    check_world(loaded)
    loaded = loaded if steps is None else loaded.with_steps(steps)
    file = Path(out) / "records.jsonl" if out is not None else None
    identity = identity_of(loaded)
    finished = {tuple(record.get(name) for name in KEY): record for record in (read_records(file) if file else [])}
    records: list[Record] = []
    jobs: list[tuple] = []
    for run in product(range(prompts), range(seeds)):
        found = {
            policy: finished.get(
                (*identity, policy, *run, seconds, write_story(story) or None, steps, "shared" if shared else None)
            )
            for policy in policies
        }
        usable = {
            policy: record for policy, record in found.items() if record and not _lacks_reference(record, policies)
        }
        pending = [policy for policy in policies if policy not in usable]
        records += usable.values()
        jobs += [(policies, pending, *run, seconds, story, shared)] if pending else []
    if shared and jobs:
        saved = [counts(list(paths_of(loaded, *job[:-1]).values())) for job in jobs]
        computed, asked = (sum(each[name] for each in saved) for name in ("chunks_computed", "chunks_asked"))
        print(f"{computed} of {asked} chunks to compute: {1 - computed / asked:.1%} saved", file=sys.stderr)
    with tqdm(total=len(policies) * prompts * seeds, initial=len(records), unit="stream", file=sys.stderr) as bar:
        for record in _run(loaded, (model, device, precision, steps), jobs, workers, ray):
            if steps is not None:
                record["steps"] = steps
            records.append(record)
            if file:
                append_record(file, record)
            bar.update()
    return sorted(records, key=lambda record: (policies.index(record["policy"]), record["prompt"], record["seed"]))


def _check_limit(name: str, value: Any) -> None:
    """Raise ValueError unless a parameter is a number within `LIMITS`; all but seconds are integers."""
    least, most = LIMITS[name]
    whole = name != "seconds"
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise ValueError(f"{name} must be a {'whole ' if whole else ''}number from {least} to {most}, not {value!r}")


def _run(
    loaded: VideoModel,
    by_name: tuple[Any, str, str | None, int | None],
    jobs: list[tuple],
    workers: int,
    ray: str | None,
) -> Iterator[Record]:
    if ray:
        for records in over_ray(_job, [(*by_name, *job) for job in jobs], ray, by_name[1]):
            yield from records
        return
    if workers == 1:
        for job in jobs:
            yield from _records(loaded, *job)
        return
    for records in over_processes(_job, [(*by_name, *job) for job in jobs], workers):
        yield from records


def _lacks_reference(record: Record, policies: Sequence[str]) -> bool:
    return record["psnr_to_full"] is None and record["policy"] != REFERENCE and REFERENCE in policies


def draws_world(model: VideoModel) -> bool:
    """Tell whether the model decodes video of the toy world's size, so that the oracle can read it."""
    chunk = model.frames_per_chunk * model.video_frames_per_latent
    return model.decoder is not None and model.latent[1:] == (HEIGHT // 8, WIDTH // 8) and chunk == CHUNK


def check_world(model: VideoModel) -> None:
    """Raise ValueError unless the model generates the toy world."""
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
        f"model {model!r} does not generate the toy world, and the oracle reads nothing else; evaluate the tiny model"
    )


def oracle_accuracy(model: VideoModel, samples: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure the oracle itself on renders and on the codec's reconstructions of them: the upper bound of adherence.

    Raises:
        ValueError: The model has no codec to encode with.
    """
    codec = getattr(model.decoder, "codec", None)
    if codec is None:
        raise ValueError(f"model {model.name!r} has no codec to encode renders with; use the tiny model")

    @torch.inference_mode()
    def through(video: np.ndarray) -> np.ndarray:
        parameter = next(codec.parameters())
        return to_frames(codec.decode(codec.encode(to_pixels(video)[None].to(parameter)))[0][0])

    return {"renders": oracle.accuracy(samples, seed), "codec": oracle.accuracy(samples, seed, through=through)}


# Tables.


def summary(records: Sequence[Record]) -> pd.DataFrame:
    """Average records per policy in order of appearance; columns as in `pandas.json_normalize`, and streams."""
    streams = pd.json_normalize(list(records)).groupby("policy", sort=False)
    means = streams.mean(numeric_only=True).drop(columns=["prompt", "seed", "seconds"])
    return means.assign(streams=streams.size())


def over_time(records: Sequence[Record]) -> pd.DataFrame:
    """Tabulate adherence: one row per record, mark and word with policy, seconds, word, adherence."""
    rows = [
        {"policy": record["policy"], "seconds": float(mark), "word": word, "adherence": share}
        for record in records
        for mark, words in record["adherence"].items()
        for word, share in words.items()
    ]
    return pd.DataFrame(rows)


def table(records: Sequence[Record]) -> str:
    """Print a table: mean adherence at each mark, then the measures, one column per policy."""
    seen = over_time(records).pivot_table(index="policy", columns="seconds", values="adherence", sort=False)
    seen.columns = [f"adherence at {mark:g} s" for mark in seen.columns]
    means = summary(records)
    measures = means.reindex(columns=list(COLUMNS)).rename(columns=COLUMNS)
    rows = seen.join(measures).join(means["streams"]).T
    return rows.to_string(float_format=lambda x: f"{x:,.3f}" if abs(x) < 1000 else f"{x:,.0f}", na_rep="-")


def report(records: Sequence[Record], **more: Any) -> dict[str, Any]:
    """Return means per policy, every record, and other fields, ready for JSON."""
    means = summary(records).astype(object)
    means = means.where(means.notna(), None)
    shares = any("timing" in record for record in records)
    speeds = {"timing": "shared"} if shares else {"fps_meaning": FPS_MEANING}
    return {"policies": means.to_dict("index"), **speeds, **more, "records": list(records)}


def contact_sheet(
    model: VideoModel,
    policy: str,
    path: str | Path,
    prompts: int = 6,
    seconds: float = 60,
    columns: int = 8,
    story: Storyboard = NO_STORY,
) -> None:
    """Draw held-out prompts 0..prompts-1 with seeds 0..prompts-1, none selected: frames over time of each.

    For a model of the memory world every second prompt is a shot.

    Args:
        model: The model that streams.
        policy: As `fkv.policies.parse` reads it.
        path: PNG file to write, or PDF file, which has the prompts on its last page, so that one can name them first.
        prompts: Number of prompts, 1 to 100.
        seconds: Length of each stream, 2 to 3600.
        columns: Frames shown of each stream, 2 to 32.

    Raises:
        ValueError: The model does not generate the toy world, or a number is out of range.
    """
    from .evaluation_plots import filmstrip_pages, filmstrips

    check_world(model)
    if not 1 <= prompts <= 100 or not 2 <= columns <= 32 or not 2 <= seconds <= 3600:
        raise ValueError(
            "a contact sheet shows 1-100 prompts in 2-32 columns over 2-3600 seconds, "
            f"not {prompts}, {columns}, {seconds}"
        )
    titles = []
    strips = []
    for index in tqdm(range(prompts), unit="stream", file=sys.stderr):
        text = held_out_shot(index) if index % 2 and model.transformer.events else None
        chunks = run_stream(model, policy, index, index, seconds, story, text)
        video = video_of(chunks)
        shown = np.linspace(0, len(video) - 1, columns).round().astype(int)
        strips.append(video[shown])
        titles.append(f"{chunks[0].prompt}   (seed {index})")
    draw = filmstrip_pages if Path(path).suffix.lower() == ".pdf" else filmstrips
    draw(titles, strips, (shown / FPS).tolist(), path)
