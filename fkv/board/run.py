"""Run a board: every rule on every prompt and seed. What is finished is kept, and a later run goes on from it.

Seeds are outermost, then prompts, so that the results say something long before the end: they are of the runs that all
rules have, `part`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from tqdm import tqdm

from fkv import __version__
from fkv.analysis import features as feature
from fkv.analysis import recall
from fkv.analysis.jobs import load_once, run_jobs
from fkv.files import read_text
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.records import Record, append_record, resume_records
from fkv.video import ENDING

from . import result as results
from .result import Result
from .spec import TRUTH, Plan, Protocol, Setup, Spec, plan, slug, title
from .stream import mp4_of, stream_record
from .table import videos_csv

PLAN = "plan.json"
RECORDS = "records.jsonl"
RESULTS = "results"
MAX_PLAN_BYTES = 16 << 20
Kept = Literal["none", "first", "all"]
Key = tuple[str, int, int]
"""Policy, number of the prompt, seed."""


@dataclass(frozen=True)
class Setting:
    """Where a board runs.

    Args:
        device: Of the model.
        precision: Of the model, None for what the device multiplies in hardware.
        features: What likeness is measured by, see `fkv.analysis.features`.
        workers: Processes, each with one thread.
        ray: Address of a Ray cluster to use instead.
        videos: Which videos are kept: none, the first of every rule, or all.
        recall: Whether recall is measured too, for models of the memory world.
    """

    device: str = "cpu"
    precision: str | None = None
    features: str = feature.LAYOUT
    workers: int = 1
    ray: str | None = None
    videos: Kept = "first"
    recall: bool = False

    @property
    def at_once(self) -> int:
        """Streams that run at the same time on a machine; 2 stands for several of a cluster."""
        return 2 if self.ray else self.workers


def run(spec: Spec, out: Path, setting: Setting | None = None) -> list[Result]:
    """Run a board, or what of it is not finished.

    Args:
        spec: The board.
        out: A folder, which is made. It gets the plan, a record per video, videos, and a result per rule.
        setting: Where it runs.

    Returns:
        A result per rule.

    Raises:
        ValueError: The spec does not fit the model, or the folder holds another board.
    """
    setting = setting or Setting()
    model = registry.load(spec.model, setting.device, precision=setting.precision, **spec.setup)
    if setting.recall:
        recall.check_events(model)
    planned = resume(out, spec, model, setting.features)
    protocol = planned.protocol
    finished = {_key(record): record for record in resume_records(out / RECORDS)}
    for record in finished.values():
        check_origin(record, protocol)
    earlier = _earlier(out, planned)
    every = [(policy, *each) for each in _runs(protocol) for policy in planned.rules]
    pending = [key for key in every if key not in finished or _lost(out, planned, key, setting.videos)]
    jobs = [(*key, protocol.prompts[key[1]], protocol.seconds, _kept(planned, key, setting.videos)) for key in pending]
    written: Protocol | None = None
    here = partial(_one, model, feature.load(setting.features, setting.device))
    setup = (spec.model, setting.device, setting.precision, spec.setup, setting.features)
    with tqdm(total=len(every), initial=len(every) - len(jobs), unit="video", file=sys.stderr) as bar:
        for record, video in run_jobs(here, _job, setup, jobs, setting.workers, setting.ray):
            check_origin(record, protocol)
            record |= origin(protocol, record["prompt"]) | {"date": date.today().isoformat()}
            if video is not None:
                file = video_file(out, planned, _key(record))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(video)
            if record["costs"]:
                record["costs"]["at_once"] = setting.at_once
            finished[_key(record)] = record
            append_record(out / RECORDS, record)
            bar.update()
            if (common := part(planned, finished)) not in (None, written, protocol):
                _write(out, _results(planned, common, finished, earlier))
                written = common
    found = _results(planned, protocol, finished, earlier)
    _write(out, found)
    if setting.recall:
        found = _with_recall(found, model, out)
        _write(out, found)
    return found


def _runs(protocol: Protocol) -> list[tuple[int, int]]:
    """Number of the prompt and seed of all videos of a rule, in the order in which they are made."""
    return [(number, seed) for seed in protocol.seeds for number in range(len(protocol.prompts))]


def part(planned: Plan, finished: Collection[Key]) -> Protocol | None:
    """The part of a board's protocol that all its rules have: whole seeds, or prompts of the first seed.

    Args:
        planned: The board.
        finished: What there are records of.

    Returns:
        The protocol with fewer seeds and prompts; None where not even one prompt is finished.
    """
    protocol = planned.protocol
    ready = {run for run in _runs(protocol) if all((policy, *run) in finished for policy in planned.rules)}
    numbers = range(len(protocol.prompts))
    if seeds := [seed for seed in protocol.seeds if all((number, seed) in ready for number in numbers)]:
        return protocol.model_copy(update={"seeds": seeds})
    first = protocol.seeds[0]
    prompts = [protocol.prompts[number] for number in takewhile(lambda each: (each, first) in ready, numbers)]
    return protocol.model_copy(update={"seeds": [first], "prompts": prompts}) if prompts else None


def origin(protocol: Protocol, prompt: int) -> Record:
    """What a record says of how its video was made; `text` is the prompt, None for a number that the board lacks."""
    text = protocol.prompts[prompt] if prompt < len(protocol.prompts) else None
    return {"text": text} | {
        name: getattr(protocol, name) for name in ("checkpoint", "precision", "seconds", "features")
    }


def check_origin(record: Record, protocol: Protocol) -> None:
    """Raise ValueError for a record that was made otherwise; those of earlier versions do not say all of `origin`."""
    for name, wanted in origin(protocol, record["prompt"]).items():
        if wanted is not None and (there := record.get(name, wanted)) != wanted:
            raise ValueError(
                f"a record of {record['policy']!r} has the {name} {there!r:.60}, and the board {protocol.name!r} "
                f"{wanted!r:.60}; remove its line from {RECORDS}, or name another folder"
            )


def _earlier(out: Path, planned: Plan) -> dict[str, Result]:
    """The results that lie in a folder, by their rules; none of other weights or of another length."""
    files = {policy: out / RESULTS / f"{slug(policy)}.json" for policy in planned.rules}
    found = {policy: results.load(file) for policy, file in files.items() if file.exists()}
    runs = planned.protocol.model_dump(include={"prompts", "seeds"})  # an unfinished board has fewer
    return {policy: each for policy, each in found.items() if each.protocol.model_copy(update=runs) == planned.protocol}


def _results(
    planned: Plan, protocol: Protocol, finished: Mapping[Key, Record], earlier: Mapping[str, Result]
) -> list[Result]:
    """A result per rule, of the runs of a `part`, with scores of VBench-Long and recall of earlier results."""
    source = f"fkv board run of {protocol.name}, version {__version__}"
    found = [
        results.of_records(protocol, policy, tracks, [finished[policy, *run] for run in _runs(protocol)], source)
        for policy, tracks in planned.rules.items()
    ]
    return [results.with_earlier(each, earlier[each.policy]) if each.policy in earlier else each for each in found]


def _write(out: Path, found: Sequence[Result]) -> None:
    """Write a result per rule in place of those that lie there, and every video as a line of CSV."""
    files = {results.save(each, out / RESULTS) for each in found}
    for other in set((out / RESULTS).glob("*.json")) - files:  # of a rule that the spec no longer has
        other.unlink()
    (out / "videos.csv").write_text(videos_csv(found), encoding="utf-8")


def unfinished(out: Path, found: Sequence[Result]) -> str:
    """What of a folder's board its results lack, as a sentence; "" where they are whole or lie elsewhere."""
    if not (out / PLAN).exists() or not found:
        return ""
    whole, there = read_plan(out).protocol, found[0].protocol
    if there == whole:
        return ""
    return (
        f"unfinished: {len(there.seeds)} of {len(whole.seeds)} seeds, {len(there.prompts)} of {len(whole.prompts)} "
        "prompts; fkv board run goes on"
    )


def resume(out: Path, spec: Spec, model: VideoModel, features: str) -> Plan:
    """The plan of a spec in a folder. Records of a spec with other rules stay, as long as all else is the same.

    Raises:
        ValueError: The folder holds records of other prompts, seeds, length or weights, or its plan is damaged.
    """
    planned = plan(spec, model, features)
    if (out / PLAN).exists() and (out / RECORDS).exists():
        there = read_plan(out).protocol.model_dump()
        if other := [name for name, value in planned.protocol.model_dump().items() if there[name] != value]:
            raise ValueError(
                f"{out} holds a board with other {', '.join(other).replace('_', ' ')}; name another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    (out / PLAN).write_text(planned.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return planned


def read_plan(out: Path) -> Plan:
    """The plan of a folder. Raises ValueError where there is none."""
    file = out / PLAN
    try:
        return Plan.model_validate_json(read_text(file, MAX_PLAN_BYTES))
    except FileNotFoundError:
        raise ValueError(f"{out} holds no board; make one with fkv board run") from None
    except ValidationError:
        raise ValueError(f"{file} is damaged; name another folder") from None


def video_file(out: Path, planned: Plan, key: Key) -> Path:
    """Where a video lies: a folder per rule, in the layout that VBench-Long reads (PROMPT-SEED.mp4)."""
    policy, number, seed = key
    return out / "videos" / slug(policy) / clip_name(planned.protocol, number, seed)


def clip_name(protocol: Protocol, number: int, seed: int) -> str:
    """The file name of the video of a prompt and a seed."""
    return f"{title(protocol.prompts[number])}-{seed}{ENDING}"


def _key(record: Record) -> Key:
    return record["policy"], record["prompt"], record["seed"]


def _kept(planned: Plan, key: Key, videos: Kept) -> bool:
    return videos == "all" or (videos == "first" and key[1:] == (0, planned.protocol.seeds[0]))


def _lost(out: Path, planned: Plan, key: Key, videos: Kept) -> bool:
    """Whether a video should be there and is not."""
    return _kept(planned, key, videos) and not video_file(out, planned, key).exists()


def _job(
    name: str, device: str, precision: str | None, setup: Setup, features: str, *job: Any
) -> tuple[Record, bytes | None]:
    """A job in a process of its own."""
    return _one(load_once(name, device, precision, **setup), feature.load(features, device), *job)


def _one(
    model: VideoModel,
    features: feature.Features,
    policy: str,
    number: int,
    seed: int,
    prompt: str,
    seconds: float,
    keep: bool,
) -> tuple[Record, bytes | None]:
    record, video = stream_record(model, policy, prompt, seed, seconds, features)
    _, checkpoint, precision = identity_of(model)
    names = {"policy": policy, "prompt": number, "seed": seed, "checkpoint": checkpoint, "precision": precision}
    return names | record, mp4_of(video, model.fps) if keep else None


def _with_recall(found: list[Result], model: VideoModel, out: Path) -> list[Result]:
    """The results with what `fkv.analysis.recall` says of their rules, measured in this process."""
    rules = [each.policy for each in found if each.policy != TRUTH]
    protocol = found[0].protocol
    records = recall.recall(rules, len(protocol.prompts), len(protocol.seeds), model=model, out=out)
    rows = recall.summary(records, ("policy",))
    rows = rows[rows["recall"].notna()]  # a rule that shows nothing right has nothing to recall
    recalled = {row["policy"]: results.Recall.of_summary(row) for row in rows.to_dict("records")}
    return [each.model_copy(update={"recall": recalled.get(each.policy)}) for each in found]
