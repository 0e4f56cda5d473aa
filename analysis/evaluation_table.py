"""The evaluation as one Markdown table: every policy with 95 % intervals over prompts, and what differs from full."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fkv.policies import parse
from fkv.records import Record

from .evaluation_streams import REFERENCE

RESAMPLES = 4000
FEWEST = 6  # prompts; with fewer, equal signs on all prompts are no rare coincidence
MEASURES = {
    "adherence": ("adherence at the end", "{:.3f}"),
    "drift.colours": ("drift of colours", "{:.3f}"),
    "discontinuity": ("chunk discontinuity", "{:.2f}"),
    "flicker": ("flicker", "{:.4f}"),
    "switch.success": ("switch success", "{:.2f}"),
    "psnr_to_full": ("PSNR to full, dB", "{:.1f}"),
}
STEPS = re.compile(r"(.*?)((?:, \d+ steps?)?)")
"""A policy's name and the number of denoising steps, where several were compared; see `with_steps`."""

NO_REMARKS: dict[str, dict[str, str]] = {}

NOTES = """
Means over {streams} streams of {seconds:g} s per policy ({prompts} held-out prompts), in brackets 95 % bootstrap
intervals over prompts, from {fewest} prompts on. **Bold**: the difference from `full` on the same prompts has an
interval without 0. Reads: latent frames by default, S sink, M memory, R recent, C current. KV: the most bytes of K and
V while a chunk attended.
"""


def with_steps(policy: str, steps: int | None) -> str:
    """Return how a policy is called where numbers of steps are compared; None is the model's own."""
    return policy if steps is None else f"{policy}, {steps} {'step' if steps == 1 else 'steps'}"


def by_prompt(records: Sequence[Record]) -> pd.DataFrame:
    """Average the measures over the seeds of each prompt.

    Returns:
        One row per policy and prompt (the index), in the order of the records; columns are keys of `MEASURES`, and
        `kv_bytes_peak`.
    """
    rows = pd.json_normalize(list(records))
    rows["adherence"] = [np.mean(list(list(record["adherence"].values())[-1].values())) for record in records]
    rows = rows.reindex(columns=["policy", "prompt", *MEASURES, "kv_bytes_peak"])
    return rows.groupby(["policy", "prompt"], sort=False).mean()


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean; infinite with fewer than `FEWEST` values."""
    if len(values) < FEWEST:
        return -np.inf, np.inf
    drawn = values[np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def markdown(records: Sequence[Record], remarks: Mapping[str, Mapping[str, str]] = NO_REMARKS) -> str:
    """Return the table and how to read it.

    Args:
        records: Of `fkv eval`.
        remarks: Heading of a further column -> policy -> what stands there.
    """
    found = by_prompt(records)
    names = list(dict.fromkeys(record["policy"] for record in records))
    headings = ["policy", "reads", *(heading for heading, _ in MEASURES.values()), "KV, MB", *remarks]
    rows = [[*_row(found, name), *(column.get(name, "") for column in remarks.values())] for name in names]
    lines = [headings, ["-"] * len(headings), *rows]
    notes = NOTES.format(
        fewest=FEWEST,
        streams=len(records) // len(names),
        seconds=records[0]["seconds"],
        prompts=len({record["prompt"] for record in records}),
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n" + notes


def _row(found: pd.DataFrame, name: str) -> list[str]:
    own = found.loc[name]
    policy, steps = STEPS.fullmatch(name).groups()  # type: ignore[union-attr]  # it matches every name
    full = REFERENCE + steps
    reference = found.loc[full] if full in found.index.get_level_values(0) and name != full else None
    cells = [
        _cell(own[key], None if reference is None else reference[key], look) for key, (_, look) in MEASURES.items()
    ]
    return [f"`{name}`", parse(policy).unwrapped.reading, *cells, f"{own['kv_bytes_peak'].mean() / 1e6:.1f}"]


def _cell(own: pd.Series, reference: pd.Series | None, look: str) -> str:
    """The mean with its interval, bold where it differs from the reference."""
    values = own.dropna()
    if values.empty:
        return "-"
    mean = look.format(values.mean())
    low, high = interval(values.to_numpy())
    if reference is not None:
        difference = interval((own - reference).dropna().to_numpy())
        mean = f"**{mean}**" if difference[0] > 0 or difference[1] < 0 else mean
    return f"{mean} ({look.format(low)} to {look.format(high)})" if np.isfinite(low) else mean
