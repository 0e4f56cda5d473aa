"""Does a stream bring back what left the picture, by how long it was away and by what the policy had cached of it.

Every probe (`probes`) is streamed under every policy. Recall is the share of items, among those that were shown right
before, that come back right.

python -m fkv eval --recall --policy full,forcing-kv --away 3,20 --prompts 4 --out runs/recall
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm import tqdm

from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.policies import parse, write
from fkv.records import Record, append_record, resume_records
from fkv.report import device_name
from fkv.stream import Chunk, Stream, video_of
from fkv.world.shots import caption
from fkv.world.story import STORY_GENES
from fkv.world.tensors import genes_of

from .jobs import check_named, load_once, run_jobs
from .probes import MOST_SEEDS, Kind, Probe, ProbeNoise, make_probe, score, truth_of

AWAY = (3.0, 10.0, 20.0, 60.0)  # seconds
LIMITS = {"prompts": (1, 1000), "seeds": (1, MOST_SEEDS), "workers": (1, 64)}
# Fields that identify a stream; the last is left out where it is the model's own.
KEY = ("model", "checkpoint", "precision", "policy", "kind", "prompt", "seed", "away", "steps")
RESAMPLES = 2000  # of the prompts, for an interval


def cached_share(chunk: Chunk, frames: Sequence[int]) -> float:
    """The share of some latent frames that a chunk holds: pages per head and layer, over all of them, 0 to 1."""
    held = 0
    total = 0
    for group, pages in chunk.pages.items():
        heads = sum(len(layer) for layer in chunk.heads[group])
        held += heads * int(np.isin(pages.frame, list(frames)).sum())
        total += heads * len(frames) * chunk.segments
    return held / total if total else 0.0


def run_probe(model: VideoModel, policy: str, probe: Probe, seed: int) -> Record:
    """Stream a probe under a policy and score it.

    Returns:
        The fields of `KEY` but steps; the device; `cached`, the share of the frames that showed the items which the
        cache holds at their return; `kv_bytes_peak`; and `items`, see `score`.
    """
    noise = ProbeNoise(probe, seed)
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
        videos.append(video_of([chunk]))
        peak = max(peak, chunk.kv_bytes)
        if index == probe.returns:
            source = range(probe.before.start * frames_per_chunk, probe.before.stop * frames_per_chunk)
            cached = cached_share(chunk, source)
    names = (*identity_of(model), policy, probe.kind, probe.prompt, seed, probe.seconds)
    items = score(probe, np.concatenate(videos), truth_of(probe, genes))
    measured = {"device": device_name(model.device), "cached": cached, "kv_bytes_peak": peak, "items": items}
    return dict(zip(KEY, names, strict=False)) | measured


def _job(name: str, device: str, precision: str | None, steps: int | None, *arguments: Any) -> Record:
    """`run_probe` in a process of its own."""
    return run_probe(load_once(name, device, precision).with_steps(steps), *arguments)


def recall(
    policies: Sequence[str],
    prompts: int = 4,
    seeds: int = 1,
    away: Sequence[float] = AWAY,
    model: VideoModel | str = "tiny-memory",
    device: str = "cpu",
    precision: str | None = None,
    out: str | Path | None = None,
    workers: int = 1,
    steps: int | None = None,
    ray: str | None = None,
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
        steps: Denoising steps, by default those of the model.
        ray: Address of a Ray cluster to use instead; see `fkv.parallel.ray_map`.

    Returns:
        One record per stream, see `run_probe`; with `steps`, it holds them.

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
    check_named(model, workers, ray)
    loaded = registry.load(model, device, precision=precision) if isinstance(model, str) else model
    loaded = loaded.with_steps(steps)
    check_events(loaded)
    written = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    for policy in written:
        check_fit(loaded, policy)
    probes = list(
        dict.fromkeys(make_probe(kind, i, s) for s in away for i in range(prompts) for kind in get_args(Kind))
    )
    file = Path(out) / "recall.jsonl" if out is not None else None
    finished = {key_of(record): record for record in (resume_records(file) if file else [])}
    runs = list(product(written, probes, range(seeds)))
    keys = [
        (*identity_of(loaded), policy, probe.kind, probe.prompt, seed, probe.seconds, steps)
        for policy, probe, seed in runs
    ]
    jobs = [run for key, run in zip(keys, runs, strict=True) if key not in finished]
    with tqdm(total=len(runs), initial=len(runs) - len(jobs), unit="stream", file=sys.stderr) as bar:
        setup = (model, device, precision, steps)
        for record in run_jobs(partial(run_probe, loaded), _job, setup, jobs, workers, ray):
            if steps is not None:
                record["steps"] = steps
            finished[key_of(record)] = record
            if file:
                append_record(file, record)
            bar.update()
    return [finished[key] for key in keys]


def key_of(record: Record) -> tuple[Any, ...]:
    """What identifies the stream of a record."""
    return tuple(record.get(name) for name in KEY)


def check_events(model: VideoModel) -> None:
    """Raise ValueError unless the model knows the memory world."""
    if not model.transformer.events:
        raise ValueError(
            f"model {model.name!r} was not trained on the memory world, so there is nothing to recall; "
            "use tiny-memory, or a model that fkv.training.generator trained with --stage memory"
        )


def check_fit(model: VideoModel, policy: str) -> None:
    """Raise ValueError where a policy does not fit a model, for want of head roles for example."""
    Stream(model, parse(policy), caption(make_probe("thing", 0, 1).shots[0]))


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
    """The 95 % interval of recall over prompts: bootstrap; where all prompts agree, Wilson's with one vote a prompt.

    Args:
        shown: Items with columns kind, prompt and recalled; without any, the interval is (0, 1).
    """
    prompts = shown.groupby(["kind", "prompt"])["recalled"].agg(["sum", "size"]).to_numpy(float)
    if not len(prompts):
        return 0.0, 1.0
    shares = prompts[:, 0] / prompts[:, 1]
    if np.ptp(shares) == 0:
        return wilson(shares[0], len(prompts))
    drawn = prompts[np.random.default_rng(0).integers(len(prompts), size=(RESAMPLES, len(prompts)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
    return float(low), float(high)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` votes (Wilson 1927)."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def table(records: Sequence[Record]) -> str:
    """A table for people: recall at each time away, one row per policy, then what was cached and the peak KV."""
    means = summary(records)
    shown = means.pivot(index="policy", columns="away", values="recall").reindex(means["policy"].unique())
    shown.columns = [f"recall after {seconds:g} s" for seconds in shown.columns]
    total = summary(records, ("policy",)).set_index("policy")
    rows = shown.join(total[["recall", "low", "high", "items", "shown", "chance", "cached", "kv_bytes_peak"]])
    return rows.to_string(float_format=lambda x: f"{x:,.2f}" if abs(x) < 1000 else f"{x:,.0f}", na_rep="-")
