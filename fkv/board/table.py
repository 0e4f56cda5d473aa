"""A board as rows: means with intervals over prompts, differences from the reference, and what each rule costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from fkv import policies
from fkv.analysis.evaluation_table import FEWEST, RESAMPLES, interval

from .columns import MEASURES
from .result import Costs, Result
from .spec import REFERENCE, TRUTH, TrackName

Row = dict[str, Any]
NOTES = f"""\
Means over videos; in brackets 95 % intervals over prompts by bootstrap ({RESAMPLES:,} resamples), from {FEWEST}
prompts on. **Bold**: the difference from `{REFERENCE}`, paired by prompt and seed, has an interval without 0. Frames:
latent frames that a denoising pass and the context pass read, on average over heads, the chunk's own included.
Milliseconds per chunk without and with the decoder; ~ marks times of a busy machine: do not compare them. Peak: on CUDA
the most that was allocated, on CPUs the size of the process after a chunk, with what earlier rules left in it.
"""


def rows(results: Sequence[Result]) -> list[Row]:
    """One row per rule and track.

    Args:
        results: Of any boards; a rule is compared with the reference of its own.

    Returns:
        Rows of: name (of the file), board, model, checkpoint, training_horizon, policy, rule (the name), family, paper,
        reading, parity, origin, source, date, videos, the fields of `Costs`, fps, busy, recall, track, frames (of the
        budget), and measures (name -> mean, low, high, and difference, difference_low, difference_high where there is a
        reference); None for what is unknown.
    """
    reference = {result.protocol.name: result for result in results if result.policy == REFERENCE}
    return [
        _facts(result) | {"track": track.name, "frames": track.frames, "measures": found}
        for result in results
        for found in [_measures(result, reference.get(result.protocol.name))]
        for track in result.tracks
    ]


def _facts(result: Result) -> Row:
    """What is the same on all tracks."""
    costs, protocol = result.costs, result.protocol
    rule = None if result.policy == TRUTH else policies.parse(result.policy).unwrapped
    return {
        "name": result.name,
        "board": protocol.name,
        "model": protocol.model,
        "checkpoint": protocol.checkpoint,
        "training_horizon": protocol.training_horizon,
        "policy": result.policy,
        "rule": rule.name if rule else TRUTH,
        "family": rule.family if rule else "truth",
        "paper": rule.paper if rule else "",
        "reading": rule.reading if rule else "",
        "parity": policies.parity(type(rule)) if rule else "drawn, not generated",
        "origin": result.origin,
        "source": result.source,
        "date": result.date,
        "videos": len(result.videos),
        **(costs.model_dump() if costs else dict.fromkeys(Costs.model_fields)),
        "fps": costs.fps if costs else None,
        "busy": costs.busy if costs else False,
        "recall": result.recall.model_dump() if result.recall else None,
    }


def _measures(result: Result, reference: Result | None) -> dict[str, Row]:
    """Every measure that some video has."""
    found = {}
    other = _by_run(reference) if reference and reference is not result else {}
    for name in MEASURES:
        own = {run: values[name] for run, values in _by_run(result).items() if values.get(name) is not None}
        if not own:
            continue
        row = _interval("", own)
        pairs = {run: own[run] - value for run in own if (value := other.get(run, {}).get(name)) is not None}
        if pairs:
            row |= _interval("difference", pairs)
        found[name] = row
    return found


def _by_run(result: Result) -> dict[tuple[int, int], dict[str, Any]]:
    return {(video.prompt, video.seed): video.measures for video in result.videos}


def _interval(name: str, values: dict[tuple[int, int], float]) -> Row:
    """The mean over prompts, each averaged over its seeds, with its interval; None for no bounds."""
    prompts: dict[int, list[float]] = {}
    for (prompt, _), value in values.items():
        prompts.setdefault(prompt, []).append(value)
    means = np.array([np.mean(each) for each in prompts.values()])
    low, high = (bound if np.isfinite(bound) else None for bound in interval(means))
    prefix = f"{name}_" if name else ""
    return {name or "mean": float(means.mean()), f"{prefix}low": low, f"{prefix}high": high}


def overlap(one: Sequence[Row], two: Sequence[Row], name: str) -> list[bool]:
    """Whether a measure's intervals in the rows of two boards overlap, for every rule that has one in both."""
    found: list[dict[str, Row]] = [
        {row["policy"]: row["measures"][name] for row in board if name in row["measures"]} for board in (one, two)
    ]
    pairs = [(found[0][policy], found[1][policy]) for policy in found[0] if policy in found[1]]
    return [a["low"] <= b["high"] and b["low"] <= a["high"] for a, b in pairs if None not in (a["low"], b["low"])]


def differs(measure: Row) -> bool:
    """Whether a measure differs from the reference's by more than chance."""
    low, high = measure.get("difference_low"), measure.get("difference_high")
    return low is not None and high is not None and (low > 0 or high < 0)


def goodness(name: str, row: Row) -> float:
    """By what rows are ordered: larger is better, -inf where a row has no such measure."""
    measure = row["measures"].get(name)
    if measure is None:
        return -np.inf
    mean: float = measure["mean"]
    return {"high": mean, "none": mean, "low": -mean, "zero": -abs(mean)}[MEASURES[name].better]


def chosen(
    found: Iterable[Row],
    by: str = "",
    track: str = "",
    under_gb: float | None = None,
    least_fps: float | None = None,
    most_frames: float | None = None,
) -> list[Row]:
    """The rows within some limits, in an order. Rows without costs stay only without limits.

    Args:
        found: From `rows`.
        by: A key of `MEASURES`; "" keeps the order.
        track: Only rows of this track; "" for all.
        under_gb: Peak memory at most, in GB of 10**9 bytes.
        least_fps: Video frames per second at least, decoder included.
        most_frames: Latent frames that denoising reads at most.

    Raises:
        ValueError: There is no such measure, or no row has it.
    """
    found = list(found)
    if by and by not in MEASURES:
        raise ValueError(f"there is no measure {by!r:.60}; there are {', '.join(MEASURES)}")
    if by and not any(by in row["measures"] for row in found):
        raise ValueError(f"no rule has the measure {by!r} here; order by another one")

    def within(row: Row) -> bool:
        if track and row["track"] != track:
            return False
        limits = (
            (under_gb, row["peak_bytes"], lambda value, limit: value / 1e9 <= limit),
            (least_fps, row["fps"], lambda value, limit: value >= limit),
            (most_frames, row["frames_denoise"], lambda value, limit: value <= limit),
        )
        return all(limit is None or (value is not None and holds(value, limit)) for limit, value, holds in limits)

    kept = [row for row in found if within(row)]
    return sorted(kept, key=lambda row: goodness(by, row), reverse=True) if by else kept


def markdown(found: Sequence[Row]) -> str:
    """Rows as Markdown tables, one for each board and track, and how to read them."""
    parts = []
    for board in dict.fromkeys(row["board"] for row in found):
        parts += [f"### {board}\n", *by_track([row for row in found if row["board"] == board])]
    return "\n".join([*parts, NOTES])


def by_track(found: Sequence[Row]) -> list[str]:
    """Rows of a board as a Markdown table for each track, under its name."""
    parts = []
    for track in get_args(TrackName):
        if own := [row for row in found if row["track"] == track]:
            parts += [f"#### {track.capitalize()}\n", f"{lines(own)}\n"]
    return parts


def lines(found: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    names = [name for name in MEASURES if any(name in row["measures"] for row in found)]
    is_recalled = any(row["recall"] for row in found)
    head = [
        "policy",
        "frames",
        "passes",
        *(MEASURES[name].title for name in names),
        "KV, MB",
        "peak, MB",
        "ms",
        *(["recall"] if is_recalled else []),
        "parity",
    ]
    table = [head, ["-"] * len(head), *(_line(row, names, is_recalled) for row in found)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _line(row: Row, names: Sequence[str], is_recalled: bool) -> list[str]:
    budget = f" ({row['frames']} frames)" if row["frames"] else ""
    cells = [f"`{row['policy']}`{budget}", _frames(row), _or_dash("{}", row["passes"])]
    cells += [_cell(name, row["measures"].get(name)) for name in names]
    millions = [None if row[name] is None else row[name] / 1e6 for name in ("kv_bytes", "peak_bytes")]
    cells += [_or_dash("{:.1f}", millions[0]), _or_dash("{:.0f}", millions[1])]
    about = "~" if row["busy"] else ""
    cells.append("-" if row["ms_total"] is None else f"{about}{row['ms_generate']:.0f} / {row['ms_total']:.0f}")
    if is_recalled:
        cells.append("{recall:.2f} ({low:.2f} to {high:.2f})".format(**row["recall"]) if row["recall"] else "-")
    return [*cells, row["parity"]]


def _frames(row: Row) -> str:
    """What the passes read, in words."""
    if row["frames_denoise"] is None:
        return "-"
    return f"{row['frames_denoise']:g} / {_or_dash('{:g}', row['frames_context'])}"


def _cell(name: str, measure: Row | None) -> str:
    if measure is None:
        return "-"
    write = MEASURES[name].write
    mean = f"**{write(measure['mean'])}**" if differs(measure) else write(measure["mean"])
    if measure["low"] is None:
        return mean
    return f"{mean} ({write(measure['low'])} to {write(measure['high'])})"


def _or_dash(look: str, value: Any) -> str:
    return "-" if value is None else look.format(value)


def spreadsheet(found: Sequence[Row]) -> str:
    """Rows as CSV, one line per rule and track, all intervals in columns."""
    names = [name for name in MEASURES if any(name in row["measures"] for row in found)]
    bounds = ("mean", "low", "high", "difference", "difference_low", "difference_high")
    of_recall = ("recall", "low", "high", "chance", "items")
    plain = [key for key in found[0] if key not in ("measures", "recall", "name")] if found else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    recalls = ["recall", *(f"recall.{name}" for name in of_recall[1:])]
    writer.writerow([*plain, *(f"{name}.{bound}" for name in names for bound in bounds), *recalls])
    for row in found:
        values = [row["measures"].get(name, {}).get(bound) for name in names for bound in bounds]
        values += [(row["recall"] or {}).get(name) for name in of_recall]
        writer.writerow([*(row[key] for key in plain), *values])
    return out.getvalue()


def videos_csv(results: Sequence[Result]) -> str:
    """Every video as a line of CSV: its rule, prompt, seed, hash and measures."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["board", "policy", "prompt", "seed", "frames_sha256", *MEASURES])
    for result in results:
        for video in result.videos:
            values = [video.measures.get(name) for name in MEASURES]
            prompt = result.protocol.prompts[video.prompt]
            writer.writerow([result.protocol.name, result.policy, prompt, video.seed, video.frames_sha256, *values])
    return out.getvalue()
