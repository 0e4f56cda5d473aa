"""Does a stream bring back what left the picture, by how long it was away and by what the policy had cached of it.

A probe is a script of prompts for the memory world: the camera turns away from a panel and back, or a thing leaves and
the prompt asks for "the thing from before". The truth comes from the renderer: a stream's noise decides what its world
holds (`fkv.world.story`), and the oracle reads the same items before they leave and after they return.

python -m fkv eval --recall --policy full,forcing-kv --away 3,20 --prompts 4
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from fkv.models.base import VideoModel
from fkv.policies import parse, write
from fkv.stream import Chunk, Stream
from fkv.training.data import genes_of
from fkv.world import FPS
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES
from fkv.world.shots import Shot, Subject, caption
from fkv.world.story import CHUNK, LAMPS, STORY_GENES, TURN_FRAMES, ChunkTruth, Story
from fkv.world.witness import read_panel, read_thing

HELD_OUT_SEEDS = 2**41  # prompts of probes come from seeds above this, those of training from far below
AWAY = (3.0, 10.0, 20.0, 60.0)  # seconds
TURN_CHUNKS = -(-TURN_FRAMES // CHUNK)
REST = 4  # chunks in which the items are read
CHANCE = {
    "sign colour": 1 / (len(COLOURS) - 1),
    "sign shape": 1 / len(SHAPES),
    "lamps": 1 / LAMPS,
    "window": 1 / 2,
    "thing colour": 1 / len(COLOURS),
    "thing shape": 1 / len(SHAPES),
}
LIMITS = {"prompts": (1, 1000), "seeds": (1, 1000)}
Kind = Literal["panorama", "thing"]
Reading = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A script in which something leaves the picture and returns.

    Attributes:
        kind: "panorama": the camera turns away and back. "thing": a thing leaves and the prompt refers back to it.
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
        return self.after.start - (TURN_CHUNKS if self.kind == "panorama" else 1)


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
    if probe.kind == "thing":
        thing = moment.things[0].thing
        return {"thing colour": thing.colour, "thing shape": thing.shape}
    panel = moment.panels[probe.panel]
    return {"sign colour": panel.colour, "sign shape": panel.shape, "lamps": panel.lamps, "window": panel.lit}


def read_items(probe: Probe, frames: np.ndarray) -> Reading:
    """Read the probe's items, with the names of `CHANCE`, from frames uint8 [T, H, W, 3] in which the camera rests."""
    panel = read_panel(frames, probe.shots[0].time)
    if probe.kind == "thing":
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


def run_probe(model: VideoModel, policy: str, probe: Probe, seed: int) -> list[Record]:
    """Stream a probe under a policy and score it, one record per item.

    `cached` is the share of the frames that showed the items which the chunk of their return attends to.
    """
    stream = Stream(model, parse(policy), caption(probe.shots[0], held_out=True), seed)
    genes: list[list[float]] = []
    videos: list[np.ndarray] = []
    peak = 0
    cached = 0.0
    frames_per_chunk = model.frames_per_chunk
    shape = (1, frames_per_chunk, *model.latent)
    for index, shot in enumerate(probe.shots):
        if index and shot != probe.shots[index - 1]:
            stream.set_prompt(caption(shot, held_out=True))
        genes.append(genes_of(stream.noise.initial(index, shape)[0, 0, :, 0, 0], STORY_GENES))
        chunk = stream.step()
        if chunk.video is None:
            raise ValueError(f"model {model.name!r} has no decoder, so there are no frames to read")
        videos.append(chunk.video)
        peak = max(peak, chunk.kv_bytes)
        if index == probe.returns:
            source = range(probe.before.start * frames_per_chunk, probe.before.stop * frames_per_chunk)
            cached = cached_share(chunk, source)
    names = {"policy": policy, "kind": probe.kind, "prompt": probe.prompt, "seed": seed, "away": probe.seconds}
    figures = {"cached": cached, "kv_bytes_peak": peak}
    return [names | figures | record for record in score(probe, np.concatenate(videos), truth_of(probe, genes))]


def recall(
    model: VideoModel, policies: Sequence[str], prompts: int = 4, seeds: int = 1, away: Sequence[float] = AWAY
) -> list[Record]:
    """Run every probe under every policy, one record per item.

    Args:
        model: A model of the memory world.
        policies: As `fkv.policies.parse` reads them.
        prompts: Held-out prompts per kind of probe and time away.
        seeds: Seeds per prompt, counted from 0.
        away: Seconds for which the items are out of the picture.

    Raises:
        ValueError: A number is out of range, there is no policy, or the model does not know the memory world.
    """
    for name, value in (("prompts", prompts), ("seeds", seeds)):
        least, most = LIMITS[name]
        if not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    if not policies:
        raise ValueError("name at least one policy to evaluate, as in --policy full,forcing-kv")
    if not model.transformer.events:
        raise ValueError(
            f"model {model.name!r} was not trained on the memory world, so there is nothing to recall; "
            "train one with python -m fkv.training.generator --stage memory"
        )
    written = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    probes = [
        make_probe(kind, i, seconds) for seconds in away for i in range(prompts) for kind in ("panorama", "thing")
    ]
    jobs = [(policy, probe, seed) for policy in written for probe in probes for seed in range(seeds)]
    return list(_run(model, jobs))


def _run(model: VideoModel, jobs: Sequence[tuple[str, Probe, int]]) -> Iterator[Record]:
    """The records of all jobs, with a progress bar."""
    for policy, probe, seed in tqdm(jobs, unit="stream", file=sys.stderr):
        yield from run_probe(model, policy, probe, seed)


def summary(records: Sequence[Record], by: Sequence[str] = ("policy", "away")) -> pd.DataFrame:
    """Recall of the items that were shown right, with 95 % intervals.

    Args:
        records: From `recall` or `score`.
        by: Columns to group by, of the records.

    Returns:
        One row per group: items, shown (share), recall, low, high, chance, cached, kv_bytes_peak where there is any.
    """
    table = pd.DataFrame(list(records))
    rows: list[Record] = []
    for key, group in table.groupby(list(by), sort=False):
        shown = group[group["shown"]]
        low, high = wilson(int(shown["recalled"].sum()), len(shown))
        row: Record = dict(zip(by, key, strict=True))
        row |= {"items": len(group), "shown": float(group["shown"].mean())}
        row |= {
            "recall": float(shown["recalled"].mean()),
            "low": low,
            "high": high,
            "chance": float(shown["chance"].mean()),
        }
        row |= {name: float(group[name].mean()) for name in ("cached", "kv_bytes_peak") if name in group}
        rows.append(row)
    return pd.DataFrame(rows)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) without observations."""
    if not count:
        return 0.0, 1.0
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def table(records: Sequence[Record]) -> str:
    """A table for people: recall at each time away, one row per policy, then what was cached and the peak KV."""
    means = summary(records)
    shown = means.pivot(index="policy", columns="away", values="recall").reindex(means["policy"].unique())
    shown.columns = [f"recall after {seconds:g} s" for seconds in shown.columns]
    total = summary(records, ("policy",)).set_index("policy")
    rows = shown.join(
        total[["low", "high", "chance", *[name for name in ("cached", "kv_bytes_peak") if name in total]]]
    )
    return rows.to_string(float_format=lambda x: f"{x:,.2f}" if abs(x) < 1000 else f"{x:,.0f}", na_rep="-")
