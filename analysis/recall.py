"""Does a stream bring back what left the picture, by how long it was away and by what the policy had cached of it.

A probe is a script of prompts for the memory world: the camera turns away from a panel and back, a thing leaves and the
prompt asks for "the thing from before", or a thing hides behind a wall until noise brings it out. The truth comes from
the renderer: a stream's noise decides what its world holds (`fkv.world.story`), and the oracle reads the same items
before they leave and after they return.

python -m fkv eval --recall --policy full,forcing-kv --away 3,20 --prompts 4 --out runs/recall
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.policies import POLICIES, parse, write
from fkv.sampler import SeededNoise
from fkv.stream import Chunk, Stream
from fkv.training.data import genes_of
from fkv.world import FPS
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES
from fkv.world.shots import Shot, Subject, caption
from fkv.world.story import CHUNK, LAMPS, RETURN, REVERSES, STORY_GENES, TURN_FRAMES, ChunkTruth, Story
from fkv.world.witness import read_panel, read_thing

from .jobs import Record, append_record, identity_of, load_once, over_processes, read_records

HELD_OUT_SEEDS = 2**41  # prompts of probes come from seeds above this, those of training from far below
AWAY = (3.0, 10.0, 20.0, 60.0)  # seconds
TURN_CHUNKS = -(-TURN_FRAMES // CHUNK)
REST = 4  # chunks in which the items are read
HIDES = 4  # chunks after which a thing that hides is behind the wall
RETURN_CHUNKS = {"panorama": TURN_CHUNKS, "thing": 1, "hidden": 2}  # from the return until the items are read
COMES_OUT = RETURN / 4  # gene
STAYS = 1 - RETURN / 4
CHANCE = {
    "sign colour": 1 / len(COLOURS),
    "sign shape": 1 / len(SHAPES),
    "lamps": 1 / LAMPS,
    "window": 1 / 2,
    "thing colour": 1 / len(COLOURS),
    "thing shape": 1 / len(SHAPES),
}
LIMITS = {"prompts": (1, 1000), "seeds": (1, 1000), "workers": (1, 64)}
KEY = ("model", "checkpoint", "precision", "policy", "kind", "prompt", "seed", "away")  # fields that identify a stream
RESAMPLES = 2000  # of the prompts, for an interval
Kind = Literal["panorama", "thing", "hidden"]
Reading = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A script in which something leaves the picture and returns.

    Attributes:
        kind: "panorama": the camera turns away and back. "thing": a thing leaves and the prompt refers back to it.
            "hidden": a thing goes behind a wall and comes out again.
        prompt: Number of the held-out prompt.
        shots: The scene of every chunk.
        before: Chunks in which the items are read before they leave.
        after: Chunks in which they are read after their return.
        seconds: How long they were out of the picture.
        panel: Number of the panel that is read.
    """

    kind: Kind
    prompt: int
    shots: tuple[Shot, ...]
    before: range
    after: range
    seconds: float
    panel: int = 0

    @property
    def returns(self) -> int:
        """The chunk that brings the items back into the picture."""
        return self.after.start - RETURN_CHUNKS[self.kind]

    def gene(self, chunk: int) -> float | None:
        """What decides in a chunk whether a hidden thing comes out; None in other probes, where noise may decide."""
        return None if self.kind != "hidden" else COMES_OUT if chunk == self.returns - 1 else STAYS


def make_probe(kind: Kind, prompt: int, seconds: float) -> Probe:
    """Make a probe.

    Args:
        kind: See `Probe`.
        prompt: Number of the held-out prompt.
        seconds: How long the items are out of the picture, rounded to chunks.

    Raises:
        ValueError: `seconds` is below 1.
    """
    if not seconds >= 1:
        raise ValueError(f"an item must be away for at least 1 second, not {seconds}")
    rng = random.Random(HELD_OUT_SEEDS + prompt)
    place = rng.choice(SCENES)
    time = rng.choice(TIMES)
    motion = rng.choice(MOTIONS)
    away = round(seconds * FPS / CHUNK)
    subject = Subject(None, None, motion)
    ahead = Shot(place, time, subject)
    if kind == "thing":
        gone = Shot(place, time, None)
        again = Shot(place, time, Subject(None, None, motion, before=True))
        shots = [ahead] * (1 + REST) + [gone] * (1 + away) + [again] * (1 + REST)
        return Probe(kind, prompt, tuple(shots), range(1, 1 + REST), _last(shots), away * CHUNK / FPS)
    if kind == "hidden":
        returns = HIDES + away
        shots = [Shot(place, time, Subject(None, None, "hiding"))] * (returns + RETURN_CHUNKS[kind] + 2)
        return Probe(kind, prompt, tuple(shots), range(2), range(len(shots) - 2, len(shots)), away * CHUNK / FPS)
    camera, panel = (("left", -1), ("right", 1))[prompt % 2]
    aside = Shot(place, time, subject, camera)
    shots = (
        [ahead] * 2 + [aside] * (TURN_CHUNKS + REST) + [ahead] * (TURN_CHUNKS + away) + [aside] * (TURN_CHUNKS + REST)
    )
    before = range(2 + TURN_CHUNKS, 2 + TURN_CHUNKS + REST)
    return Probe(kind, prompt, tuple(shots), before, _last(shots), away * CHUNK / FPS, panel)


def _last(shots: Sequence[Shot]) -> range:
    """The last chunks, in which the camera rests."""
    return range(len(shots) - REST, len(shots))


def truth_of(probe: Probe, genes: Sequence[Sequence[float]]) -> Reading:
    """What the probe's items are in the world that these genes decide, one row of genes per chunk."""
    story = Story()
    for shot, row in zip(probe.shots, genes, strict=True):
        story.extend(shot, row)
    return _items_of(probe, story.chunks[probe.before[-1]])


def _items_of(probe: Probe, chunk: ChunkTruth) -> Reading:
    """The probe's items in one chunk of a story."""
    moment = chunk.moments[-1]
    if probe.kind != "panorama":
        thing = moment.things[0].thing
        return {"thing colour": thing.colour, "thing shape": thing.shape}
    panel = moment.panels[probe.panel]
    return {"sign colour": panel.colour, "sign shape": panel.shape, "lamps": panel.lamps, "window": panel.lit}


def read_items(probe: Probe, frames: np.ndarray) -> Reading:
    """Read the probe's items, with the names of `CHANCE`, from frames uint8 [T, H, W, 3] in which the camera rests."""
    panel = read_panel(frames, probe.shots[0].time)
    if probe.kind != "panorama":
        colour, shape = read_thing(frames, panel.colour)
        return {"thing colour": colour, "thing shape": shape}
    return {"sign colour": panel.colour, "sign shape": panel.shape, "lamps": panel.lamps, "window": panel.lit}


def score(probe: Probe, video: np.ndarray, truth: Reading) -> list[Record]:
    """Score a stream of a probe, one record per item.

    Args:
        probe: The script.
        video: Frames of all its chunks, uint8 [T, H, W, 3].
        truth: What the items are, see `truth_of`.

    Returns:
        Records with `item`, `chance`, `shown` (it was right before it left), `recalled` (it is right after its return)
        and `consistent` (it is after its return what it was before, right or wrong).
    """
    before = read_items(probe, _chunks(video, probe.before))
    after = read_items(probe, _chunks(video, probe.after))
    return [
        {
            "item": item,
            "chance": CHANCE[item],
            "shown": before[item] == value,
            "recalled": after[item] == value,
            "consistent": before[item] is not None and before[item] == after[item],
        }
        for item, value in truth.items()
    ]


def _chunks(video: np.ndarray, chunks: range) -> np.ndarray:
    """The frames of some chunks."""
    return video[chunks.start * CHUNK : chunks.stop * CHUNK]


def cached_share(chunk: Chunk, frames: Sequence[int]) -> float:
    """The share of some latent frames that a chunk attends to: pages per head and layer, over all of them, 0 to 1."""
    attended = 0
    total = 0
    for group, pages in chunk.pages.items():
        heads = sum(len(layer) for layer in chunk.heads[group])
        attended += heads * int(np.isin(pages.frame, list(frames)).sum())
        total += heads * len(frames) * chunk.segments
    return attended / total if total else 0.0


@dataclass(frozen=True)
class ProbeNoise:
    """The noise of a seed, but for the number that decides when a probe's hidden thing comes out."""

    probe: Probe
    seeded: SeededNoise

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        noise = self.seeded.initial(chunk, shape)
        gene = self.probe.gene(chunk)
        if gene is not None:
            noise[:, 0, REVERSES[0], 0, 0] = torch.special.ndtri(torch.tensor(gene))
        return noise

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self.seeded.between(chunk, step, shape)


def run_probe(model: VideoModel, policy: str, probe: Probe, seed: int) -> Record:
    """Stream a probe under a policy and score it.

    Returns:
        The fields of `KEY`; `cached`, the share of the frames that showed the items which the chunk of their return
        attends to; `kv_bytes_peak`; and `items`, see `score`.
    """
    noise = ProbeNoise(probe, SeededNoise(seed))
    stream = Stream(model, parse(policy), caption(probe.shots[0], held_out=True), noise=noise)
    genes: list[list[float]] = []
    videos: list[np.ndarray] = []
    peak = 0
    cached = 0.0
    frames_per_chunk = model.frames_per_chunk
    shape = (1, frames_per_chunk, *model.latent)
    for index, shot in enumerate(probe.shots):
        if index and shot != probe.shots[index - 1]:
            stream.set_prompt(caption(shot, held_out=True))
        genes.append(genes_of(noise.initial(index, shape)[0, 0, :, 0, 0], STORY_GENES))
        chunk = stream.step()
        if chunk.video is None:
            raise ValueError(f"model {model.name!r} has no decoder, so there are no frames to read")
        videos.append(chunk.video)
        peak = max(peak, chunk.kv_bytes)
        if index == probe.returns:
            source = range(probe.before.start * frames_per_chunk, probe.before.stop * frames_per_chunk)
            cached = cached_share(chunk, source)
    names = (*identity_of(model), policy, probe.kind, probe.prompt, seed, probe.seconds)
    items = score(probe, np.concatenate(videos), truth_of(probe, genes))
    return dict(zip(KEY, names, strict=True)) | {"cached": cached, "kv_bytes_peak": peak, "items": items}


def _job(name: str, device: str, precision: str | None, *arguments: Any) -> Record:
    """`run_probe` in a process of its own."""
    return run_probe(load_once(name, device, precision), *arguments)


def recall(
    policies: Sequence[str],
    prompts: int = 4,
    seeds: int = 1,
    away: Sequence[float] = AWAY,
    model: VideoModel | str = "tiny",
    device: str = "cpu",
    precision: str | None = None,
    out: str | Path | None = None,
    workers: int = 1,
) -> list[Record]:
    """Run every probe under every policy.

    Args:
        policies: As `fkv.policies.parse` reads them.
        prompts: Held-out prompts per kind of probe and time away.
        seeds: Seeds per prompt, counted from 0.
        away: Seconds for which the items are out of the picture.
        model: A model of the memory world, or its name.
        device: Device of a named model.
        precision: Precision of a named model.
        out: Folder whose recall.jsonl finished records are appended to; records found there are not run again.
        workers: Processes, each with one thread.

    Returns:
        One record per stream, see `run_probe`.

    Raises:
        ValueError: A number is out of range, there is no policy, a policy does not fit the model, or the model does not
            know the memory world.
    """
    for name, value in (("prompts", prompts), ("seeds", seeds), ("workers", workers)):
        least, most = LIMITS[name]
        if not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    if not policies:
        raise ValueError("name at least one policy to evaluate, as in --policy full,forcing-kv")
    if workers > 1 and not isinstance(model, str):
        raise ValueError("several processes need the model by name, so that each can load it")
    loaded = registry.load(model, device, precision=precision) if isinstance(model, str) else model
    check_events(loaded)
    written = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    for policy in written:
        check_fit(loaded, policy)
    probes = [make_probe(kind, i, s) for s in away for i in range(prompts) for kind in get_args(Kind)]
    file = Path(out) / "recall.jsonl" if out is not None else None
    finished = {tuple(record[name] for name in KEY): record for record in (read_records(file) if file else [])}
    runs = list(product(written, probes, range(seeds)))
    keys = [
        (*identity_of(loaded), policy, probe.kind, probe.prompt, seed, probe.seconds) for policy, probe, seed in runs
    ]
    jobs = [run for key, run in zip(keys, runs, strict=True) if key not in finished]
    with tqdm(total=len(runs), initial=len(runs) - len(jobs), unit="stream", file=sys.stderr) as bar:
        for record in _run(loaded, (model, device, precision), jobs, workers):
            finished[tuple(record[name] for name in KEY)] = record
            if file:
                append_record(file, record)
            bar.update()
    return [finished[key] for key in keys]


def check_events(model: VideoModel) -> None:
    """Raise ValueError unless the model knows the memory world."""
    if not model.transformer.events:
        raise ValueError(
            f"model {model.name!r} was not trained on the memory world, so there is nothing to recall; "
            "train one with python -m fkv.training.generator --stage memory"
        )


def check_fit(model: VideoModel, policy: str) -> None:
    """Raise ValueError where a policy does not fit a model, for want of head roles for example."""
    Stream(model, parse(policy), caption(make_probe("thing", 0, 1).shots[0]))


def every_policy(model: VideoModel) -> list[str]:
    """The policies that a model can stream under with their default parameters."""
    fitting: list[str] = []
    for name in POLICIES:
        try:
            check_fit(model, name)
        except ValueError:
            continue
        fitting.append(name)
    return fitting


def _run(
    loaded: VideoModel, by_name: tuple[Any, str, str | None], jobs: Sequence[tuple[str, Probe, int]], workers: int
) -> Iterator[Record]:
    """The records of all jobs, as they are ready."""
    if workers > 1:
        yield from over_processes(_job, [(*by_name, *job) for job in jobs], workers)
        return
    for job in jobs:
        yield run_probe(loaded, *job)


def items_of(records: Sequence[Record]) -> pd.DataFrame:
    """One row per item of the records of `recall`, with the fields of its stream."""
    return pd.json_normalize(
        list(records), "items", [*KEY, "cached", "kv_bytes_peak"], errors="ignore", record_prefix=""
    )


def summary(records: Sequence[Record], by: Sequence[str] = ("policy", "away")) -> pd.DataFrame:
    """Recall of the items that were shown right, with 95 % intervals over prompts.

    Items of one prompt are read from the same streams, so the interval resamples prompts, not items.

    Args:
        records: From `recall`.
        by: Columns to group by, of the streams or their items.

    Returns:
        One row per group: streams, items, shown (share), recall, low, high, chance, cached, kv_bytes_peak.
    """
    rows: list[Record] = []
    for key, group in items_of(records).groupby(list(by), sort=False):
        shown = group[group["shown"]]
        low, high = interval(shown)
        row: Record = dict(zip(by, key, strict=True))
        row |= {
            "streams": len(group[list(KEY)].drop_duplicates()),
            "items": len(group),
            "shown": float(group["shown"].mean()),
            "recall": float(shown["recalled"].mean()),
            "low": low,
            "high": high,
            "chance": float(group["chance"].mean()),
        }
        rows.append(row | {name: float(group[name].astype(float).mean()) for name in ("cached", "kv_bytes_peak")})
    return pd.DataFrame(rows)


def interval(shown: pd.DataFrame) -> tuple[float, float]:
    """The 95 % bootstrap interval of recall over prompts; (0, 1) with fewer than two prompts.

    Args:
        shown: Items with columns kind, prompt and recalled.
    """
    prompts = shown.groupby(["kind", "prompt"])["recalled"].agg(["sum", "size"]).to_numpy(float)
    if len(prompts) < 2:
        return 0.0, 1.0
    drawn = prompts[np.random.default_rng(0).integers(len(prompts), size=(RESAMPLES, len(prompts)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return float(low), float(high)


def table(records: Sequence[Record]) -> str:
    """A table for people: recall at each time away, one row per policy, then what was cached and the peak KV."""
    means = summary(records)
    shown = means.pivot(index="policy", columns="away", values="recall").reindex(means["policy"].unique())
    shown.columns = [f"recall after {seconds:g} s" for seconds in shown.columns]
    total = summary(records, ("policy",)).set_index("policy")
    rows = shown.join(total[["recall", "low", "high", "items", "shown", "chance", "cached", "kv_bytes_peak"]])
    return rows.to_string(float_format=lambda x: f"{x:,.2f}" if abs(x) < 1000 else f"{x:,.0f}", na_rep="-")
