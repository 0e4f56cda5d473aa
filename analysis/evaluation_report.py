"""The report of an evaluation: means per policy and every record, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fkv.records import Record
from fkv.report import FPS_MEANING

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


def summary(records: Sequence[Record]) -> pd.DataFrame:
    """Average records per policy in order of appearance; columns as in `pandas.json_normalize`, and streams."""
    streams = pd.json_normalize(list(records)).groupby("policy", sort=False)
    means = streams.mean(numeric_only=True).drop(columns=["prompt", "seed", "seconds"])
    return means.assign(streams=streams.size())


def over_time(records: Sequence[Record]) -> pd.DataFrame:
    """Tabulate adherence: one row per record, mark and word with policy, prompt, seconds, word, adherence."""
    rows = [
        {name: record[name] for name in ("policy", "prompt")}
        | {"seconds": float(mark), "word": word, "adherence": share}
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
    """Return means per policy with its precision and device, every record, and other fields, ready for JSON."""
    means = summary(records).astype(object)
    means = means.where(means.notna(), None)
    for name in ("precision", "device"):
        said = {policy: {r[name]: None for r in records if r["policy"] == policy} for policy in means.index}
        means[name] = [", ".join(said[policy]) for policy in means.index]
    shares = any("timing" in record for record in records)
    speeds = {"timing": "shared"} if shares else {"fps_meaning": FPS_MEANING}
    return {"policies": means.to_dict("index"), **speeds, **more, "records": list(records)}
