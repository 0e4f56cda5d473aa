"""Evaluate policies on prompts and seeds: prompt adherence over time, read by the toy world's oracle, and speed.

python -m fkv eval --policy full,forcing-kv --prompts 8 --seeds 2 --seconds 60 --out runs/eval
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fkv.batch.shared import counts
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.policies import parse, write
from fkv.records import Record, append_record, resume_records
from fkv.report import device_name, without_speeds
from fkv.storyboard import NO_STORY, Storyboard
from fkv.storyboard import write as write_story
from fkv.stream import video_of

from .evaluation_streams import REFERENCE, at_once, paths_of, run_stream, run_switch
from .held_out import held_out_scene
from .jobs import check_named, load_once, run_jobs
from .oracle_checks import check_story, check_world, not_readable
from .prompt_switch import measure_switch
from .stream_measures import measure

LIMITS = {"prompts": (1, 1000), "seeds": (1, 1000), "seconds": (2, 3600), "workers": (1, 64)}
# Fields that identify a record; the last three are left out where there is nothing to say.
KEY = ("model", "checkpoint", "precision", "policy", "prompt", "seed", "seconds", "story", "steps", "timing")


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
    known: Sequence[Record] = (),
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
        known: Earlier records, which are not run again either.

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
    check_named(model, workers, ray)
    policies = list(dict.fromkeys(write(parse(policy)) for policy in policies))
    if isinstance(model, str) and registry.entry(model).release:
        raise not_readable(model)
    loaded = registry.load(model, device, precision=precision) if isinstance(model, str) else model
    check_world(loaded)
    loaded = loaded.with_steps(steps)
    file = Path(out) / "records.jsonl" if out is not None else None
    identity = identity_of(loaded)
    earlier = [*known, *(resume_records(file) if file else [])]
    finished = {tuple(record.get(name) for name in KEY): record for record in earlier}
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
    again = sum(REFERENCE in policies and REFERENCE not in pending for _, pending, *_ in jobs)
    if again:
        print(f"full is streamed {again} times more, to compare with it on this machine", file=sys.stderr)
    if shared and jobs:
        saved = [counts(list(paths_of(loaded, *job[:-1]).values())) for job in jobs]
        computed, asked = (sum(each[name] for each in saved) for name in ("chunks_computed", "chunks_asked"))
        print(f"{computed} of {asked} chunks to compute: {1 - computed / asked:.1%} saved", file=sys.stderr)
    with tqdm(total=len(policies) * prompts * seeds, initial=len(records), unit="stream", file=sys.stderr) as bar:
        setup = (model, device, precision, steps)
        made: Iterator[Iterable[Record]] = run_jobs(partial(_records, loaded), _job, setup, jobs, workers, ray)
        for record in chain.from_iterable(made):
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
    told = {} if scene else {"story": write_story(story)}
    reference = None
    made = at_once(model, paths_of(model, policies, pending, prompt, seed, seconds, story)) if shared else {}
    for policy in sorted(policies, key=lambda policy: policy != REFERENCE):
        if policy not in pending and policy != REFERENCE:
            continue
        chunks = made.pop((policy, False), None) or run_stream(model, policy, prompt, seed, seconds, story)
        if policy in pending:
            names = dict(zip(KEY, (*identity_of(model), policy, prompt, seed, seconds), strict=False)) | told
            device = {"caption": chunks[0].prompt, "device": device_name(model.device)}
            measured = measure(chunks, scene, seconds, reference, model.transformer.events)
            if scene:
                switched = made.pop((policy, True), None) or run_switch(model, policy, prompt, seed)
                measured["switch"] = measure_switch(switched, prompt)
            yield names | device | (without_speeds(measured) | {"timing": "shared"} if shared else measured)
        if policy == REFERENCE:
            reference = video_of(chunks)


def _job(name: str, device: str, precision: str | None, steps: int | None, *arguments: Any) -> list[Record]:
    return list(_records(load_once(name, device, precision).with_steps(steps), *arguments))


def _lacks_reference(record: Record, policies: Sequence[str]) -> bool:
    return record["psnr_to_full"] is None and record["policy"] != REFERENCE and REFERENCE in policies
