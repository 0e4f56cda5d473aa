"""One rule of a board as one JSON file: what it is, what it took, and what every video measures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from fkv import policies
from fkv.analysis.features import identity
from fkv.files import read_json
from fkv.records import Record

from .columns import MEASURES, VBENCH
from .spec import TRUTH, Protocol, Strict, Track, first_error, slug
from .stream import DIGITS

MAX_BYTES = 16 << 20
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Words = Annotated[str, Field(max_length=500)]


class Costs(Strict):
    """What a rule reads, holds and takes.

    Attributes:
        frames_denoise: Latent frames that the last denoising pass of the last chunk read, on average over heads.
        frames_context: The same of the context pass; None where there is none.
        positions: Whether frames are read at their true numbers in RoPE, or moved.
        span: Positions from the oldest frame read to the newest.
        granularity: Head groups and pages per frame.
        calibration: Offline statistics that the rule needs.
        passes: Passes of the transformer for the last chunk.
        kv_bytes: The most bytes of K and V held while a chunk attended.
        peak_bytes: On CUDA the most that was allocated, on a CPU the largest resident size of the process.
        ms_generate: Milliseconds per chunk without text encoder and decoder: median over chunks, then over videos.
        ms_total: The same with the decoder.
        chunk_frames: Video frames of a chunk.
        device: What it was measured on.
        threads: Of PyTorch.
        at_once: Streams that ran at the same time, at most.
        load: The most processes that wanted a core in the minute before a video; None where unknown.
        torch: Its version.
    """

    frames_denoise: Positive
    frames_context: Positive | None
    positions: Literal["true", "moved"]
    span: Annotated[int, Field(ge=1)]
    granularity: Words
    calibration: Words
    passes: Annotated[int, Field(ge=1)]
    kv_bytes: Whole
    peak_bytes: Whole
    ms_generate: Positive
    ms_total: Positive
    chunk_frames: Annotated[int, Field(ge=1)]
    device: Words
    threads: Annotated[int, Field(ge=1)]
    at_once: Annotated[int, Field(ge=1)]
    load: Annotated[float, Field(ge=0)] | None
    torch: Words

    @property
    def fps(self) -> float:
        """Video frames per second, decoder included."""
        return 1000 * self.chunk_frames / self.ms_total

    @property
    def busy(self) -> bool:
        """Whether others wanted the machine too, so that speeds say little."""
        return self.at_once > 1 or self.load is None or self.load > self.threads + 0.5


class Video(Strict):
    """One video.

    Attributes:
        prompt: Its number.
        seed: Of the noise.
        frames_sha256: Of all frames, the first 16 digits; equal hashes mean equal frames.
        measures: By names of `columns.MEASURES`; None where one does not apply.
    """

    prompt: Whole
    seed: Whole
    frames_sha256: Digest
    measures: dict[str, float | None]


class Recall(Strict):
    """What returns after it left the picture, see `fkv.analysis.recall`: a share with its interval, and chance."""

    recall: Annotated[float, Field(ge=0, le=1)]
    low: float
    high: float
    chance: float
    items: Whole

    @classmethod
    def of_summary(cls, row: dict[str, Any]) -> Recall:
        """Take the fields from a row of `fkv.analysis.recall.summary`."""
        return cls(**{name: row[name] for name in cls.model_fields})


class Group(Strict):
    """Pages of a head group, see `fkv.xray`."""

    name: Words
    heads: Whole
    segments: Annotated[int, Field(ge=1)]
    runs: list[Annotated[list[int | str | list[int]], Field(min_length=4, max_length=4)]]
    positions: list[Annotated[list[int], Field(min_length=3, max_length=3)]] = []
    edited: list[int] = []


class Xray(Strict):
    """Page tables while the last chunk attended.

    Attributes:
        frames: Latent frames so far.
        groups: Of the heads.
    """

    frames: Annotated[int, Field(ge=1)]
    groups: list[Group]


class Result(Strict):
    """A rule on a board.

    Attributes:
        format: Of this file.
        protocol: What all rules of the board share.
        policy: As `fkv.policies.write` writes it, or `TRUTH`.
        tracks: Its places.
        origin: Whether the figures were measured with this library or with the authors' code.
        source: Where the figures come from.
        date: When the last of its videos was measured, YYYY-MM-DD.
        costs: None for the truth.
        videos: One per prompt and seed.
        series: Means over videos of values second by second.
        adherence: Mean share of the prompt that the oracle reads, by seconds into the video.
        recall: For models of the memory world.
        xray: Page tables of the first prompt and seed.
    """

    format: Literal[1] = 1
    protocol: Protocol
    policy: Annotated[str, Field(max_length=2000)]
    tracks: Annotated[list[Track], Field(min_length=1)]
    origin: Literal["ours", "authors"]
    source: Words
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    costs: Costs | None
    videos: list[Video]
    series: dict[str, list[float]] = {}
    adherence: dict[str, float] = {}
    recall: Recall | None = None
    xray: Xray | None = None

    @property
    def name(self) -> str:
        """Its file name, without an ending."""
        return slug(self.policy)

    @property
    def first(self) -> Video:
        """The video of the first prompt and seed."""
        return next(each for each in self.videos if (each.prompt, each.seed) == (0, self.protocol.seeds[0]))


def check(result: Result) -> None:
    """Check what a schema cannot say.

    Raises:
        ValueError: The policy cannot be read or is written otherwise, videos are missing or twice, a measure is
            unknown, a track has no or a needless budget or is another's, or the rule reads more than its budget.
    """
    if result.policy != TRUTH and (written := policies.write(policies.parse(result.policy))) != result.policy:
        raise ValueError(f"the policy {result.policy!r} must be written {written!r}")
    if (result.costs is None) != (result.policy == TRUTH):
        raise ValueError(f"costs belong to every rule, and not to {TRUTH!r}")
    wanted = list(product(range(len(result.protocol.prompts)), result.protocol.seeds))
    found = sorted((video.prompt, video.seed) for video in result.videos)
    if found != sorted(wanted):
        raise ValueError(f"there must be one video per prompt and seed, {len(wanted)}; there are {len(found)}")
    for video in result.videos:
        if unknown := set(video.measures) - set(MEASURES):
            raise ValueError(f"there is no measure {min(unknown)!r}; there are {', '.join(MEASURES)}")
    for track in result.tracks:
        if (track.frames is None) == (track.name == "same budget"):
            raise ValueError(f"the track {track.name!r} {'needs' if track.frames is None else 'has no'} frames")
        if (track.name == "truth") != (result.policy == TRUTH):
            raise ValueError(f"the track 'truth' is for {TRUTH!r} alone, and {TRUTH!r} for no other")
        if track.frames is not None and result.costs and result.costs.frames_denoise > track.frames:
            raise ValueError(f"the budget is {track.frames} frames, and the rule reads {result.costs.frames_denoise:g}")


def of_records(
    protocol: Protocol, policy: str, tracks: Sequence[Track], records: Sequence[Record], source: str
) -> Result:
    """Make the result of a rule.

    Args:
        protocol: What all rules share.
        policy: The rule.
        tracks: Its places.
        records: Of all its videos, as `stream.stream_record` makes them, with `prompt`, `seed` and, among costs,
            `at_once`; those of earlier versions do not say their `date`.
        source: Where the figures come from.
    """
    costs = [record["costs"] for record in records if record["costs"]]
    first = next(record for record in records if (record["prompt"], record["seed"]) == (0, protocol.seeds[0]))
    return Result(
        protocol=protocol,
        policy=policy,
        tracks=list(tracks),
        origin="ours",
        source=source,
        date=max(record.get("date", date.today().isoformat()) for record in records),
        costs=_costs(costs) if costs else None,
        videos=[_video(record, records) for record in records],
        series=_means([record["series"] for record in records]),
        adherence={mark: values[0] for mark, values in _means([_listed(record) for record in records]).items()},
        xray=Xray.model_validate(first["xray"]) if first["xray"] else None,
    )


def _costs(found: Sequence[Record]) -> Costs:
    """The costs of all videos of a rule: the largest bytes and loads, the medians of times, all devices.

    Records of earlier versions do not say how many streams ran at once.
    """
    loads = [each["load"] for each in found]
    most = {
        name: max(each.get(name, 1) for each in found)
        for name in ("kv_bytes", "peak_bytes", "passes", "span", "threads", "at_once")
    }
    middle = {
        name: round(statistics.median(each[name] for each in found), 2)
        for name in ("frames_denoise", "ms_generate", "ms_total")
    }
    words = {name: ", ".join(sorted({each[name] for each in found})) for name in ("device", "torch")}
    load = None if None in loads else round(max(loads), 2)
    return Costs(**found[0] | most | middle | words | {"load": load})


def _video(record: Record, records: Sequence[Record]) -> Video:
    """A video, with its identity against other seeds of its prompt."""
    others = [
        np.array(other["opening"])
        for other in records
        if other["prompt"] == record["prompt"] and other["seed"] != record["seed"]
    ]
    own = identity(np.array(record["ending"]), np.array(record["opening"]), others)
    return Video(
        prompt=record["prompt"],
        seed=record["seed"],
        frames_sha256=record["frames_sha256"],
        measures=record["measures"] | {"identity": None if own is None else round(own, DIGITS)},
    )


def _listed(record: Record) -> dict[str, list[float]]:
    return {mark: [share] for mark, share in record["adherence"].items()}


def _means(series: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Means of several series that all have the same names and lengths."""
    return {name: np.mean([each[name] for each in series], 0).round(4).tolist() for name in series[0]}


def with_earlier(result: Result, earlier: Result) -> Result:
    """The result with what an earlier one of its rule has beside records: scores of VBench-Long, and recall."""
    there = {(video.prompt, video.seed, video.frames_sha256): video.measures for video in earlier.videos}

    def merged(video: Video) -> Video:
        known = there.get((video.prompt, video.seed, video.frames_sha256), {})
        scores = {name: value for name, value in known.items() if name.startswith(VBENCH)}
        return video.model_copy(update={"measures": video.measures | scores})

    return result.model_copy(update={"videos": [merged(video) for video in result.videos], "recall": earlier.recall})


def of_seeds(result: Result, seeds: Collection[int]) -> Result:
    """The result of some of its seeds; costs, recall and identity stay those of all.

    Raises:
        ValueError: It lacks one of them.
    """
    kept = [seed for seed in result.protocol.seeds if seed in seeds]
    if len(kept) < len(set(seeds)):
        raise ValueError(
            f"board {result.protocol.name!r} has the seeds {', '.join(map(str, result.protocol.seeds))}; "
            "name those alone, and the folder of one board"
        )
    protocol = result.protocol.model_copy(update={"seeds": kept})
    videos = [video for video in result.videos if video.seed in kept]
    return result.model_copy(update={"protocol": protocol, "videos": videos})


def load(path: str | Path) -> Result:
    """Read a result and check it.

    Raises:
        ValueError: It is no result; a sentence says what is wrong.
    """
    path = Path(path)
    try:
        result = Result.model_validate(read_json(path, MAX_BYTES))
        check(result)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise ValueError(f"{path.name}: {first_error(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}" if path.name not in str(error) else str(error)) from None
    return result


def save(result: Result, folder: Path) -> Path:
    """Write a result into a folder, which is made. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result.name}.json"
    file.write_text(json.dumps(result.model_dump(mode="json"), separators=(",", ":")) + "\n", encoding="utf-8")
    return file


def load_folder(folder: str | Path) -> list[Result]:
    """Read all results below a folder; those of one board share its protocol.

    Raises:
        ValueError: A file is no result, lies under another name, or belongs to another protocol of the same name.
    """
    found: dict[str, Result] = {}
    results = []
    for file in sorted(Path(folder).rglob("*.json")):
        result = load(file)
        if file.stem != result.name:
            raise ValueError(f"{file.name} holds {result.policy!r} and must be called {result.name}.json")
        check_protocol(result, found.setdefault(result.protocol.name, result))
        results.append(result)
    return results


def check_protocol(result: Result, other: Result) -> None:
    """Raise ValueError where two results of a board were measured differently."""
    for name, value in result.protocol.model_dump().items():
        if (there := getattr(other.protocol, name)) != value:
            raise ValueError(
                f"{result.name}.json and {other.name}.json are of board {result.protocol.name!r}, but their {name} "
                f"differ: {str(value):.60} and {str(there):.60}"
            )
