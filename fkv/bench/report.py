"""Benchmark reports: what they were measured on, tables, figures, and the comparison of two."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fkv.kernels import choices
from fkv.kernels.dispatch import TRITON_VARIABLE, setting
from fkv.report import device_name, processor

from .drawing import drawn

MEANINGS = {
    "load_before": "processes that wanted a core in the minute before; a busy machine measures itself",
    "context": "latent frames that a chunk attends to under full, its own included",
    "kv_bytes": "keys and values that the chunk attends to, its own in every layer included, from the page tables",
    "kv_bytes_between": "keys and values that stay between two chunks, from the page tables",
    "kv_bytes_allocated": "the buffers of keys and values while the chunk attends; less than kv_bytes where all layers "
    "share the memory of the chunk's own",
    "peak_bytes": "on CUDA the most that was allocated while one chunk was generated with no other stream in memory; "
    "on a CPU the resident size of the process",
    "seconds": "per chunk; generate = rebuild + denoise + context, total also decodes; medians over interleaved "
    "rounds; with --overlap, decode is the wait for a decoder that works beside the next chunk, "
    "and what that costs there is in generate",
    "tflop": "matrix products and attention of all passes of a chunk; "
    "norms, activations, text encoder and decoder are not counted",
    "roofline_s": "the least seconds for these calls at the ceilings of this run, each call at the ceiling that binds "
    "it; the ceiling is of the type that the model computes in, which fp8 products (fp8-fast) may pass",
    "bare_s": "the large matrix products and attention calls of all passes alone, on the same weights and buffers, "
    "measured in every round",
    "over_bare": "median over rounds of generate / these",
    "speed_vs_full": "median over rounds of full's seconds / this policy's, denoising and context pass",
}
COLUMNS = (
    "policy",
    "context",
    "denoise FPS",
    "end-to-end FPS",
    "vs full",
    "denoise ms",
    "context ms",
    "KV MB",
    "between MB",
    "allocated MB",
    "peak MB",
    "TFLOP/s",
    "GB/s",
    "of roofline",
    "over bare",
)
COMPARED = ("fps_denoise", "fps_end_to_end", "kv_bytes", "peak_bytes")


def _version(package: str) -> str | None:
    """Return the installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what belongs beside any measured figure: date, hardware, load and versions."""
    hardware: dict[str, Any] = {"device": device_name(device), "processor": processor()}
    hardware |= {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        hardware |= {
            "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
        }
    versions = {package: _version(package) for package in ("torch", "triton", "diffusers", "numpy")}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **versions},
    }


def kernel_choices() -> dict[str, Any]:
    """Return which implementations ran: the setting, and what `auto` has measured."""
    measured = [
        {
            "kernel": c.kernel,
            "signature": str(c.signature),
            "seconds": c.seconds,
            "fastest": c.fastest,
            "problem": c.problem,
        }
        for c in choices()
    ]
    return {TRITON_VARIABLE: setting(), "choices": measured}


def _taken(report: Mapping[str, Any]) -> str | None:
    """Return the kernels of a report in words, without their timings."""
    if not (kernels := report.get("kernels")):
        return None
    taken: dict[str, set[str]] = {}
    for choice in kernels.get("choices", ()):
        taken.setdefault(choice["kernel"], set()).add(choice["fastest"])
    measured = ", ".join(f"{kernel} by {' and '.join(sorted(ways))}" for kernel, ways in sorted(taken.items()))
    return f"{TRITON_VARIABLE}={kernels.get(TRITON_VARIABLE)}" + (
        f"; measured and taken: {measured}" if measured else ""
    )


def _noted(report: Mapping[str, Any]) -> list[str]:
    """Return the note on kernels, if any, as lines."""
    taken = _taken(report)
    return [f"kernels: {taken}"] if taken else []


def _cell(value: Any) -> str:
    """Format a value of a table."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def lines(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Format a plain table, the first column left aligned and the others right; None is a dash.

    Args:
        head: Titles of the columns.
        rows: Their values.
    """
    table = [list(head), *(list(map(_cell, row)) for row in rows)]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in table
    ]


def table(report: Mapping[str, Any]) -> list[str]:
    """Format a report of `bench` as lines for the terminal."""
    place = report["hardware"]["device"]
    if "attention" in report:
        layer = report["attention"]
        head = ["one layer, one pass", "median ms", "min ms", "max ms"]
        rows = [
            [name, *(1e3 * took[which] for which in ("median", "min", "max"))]
            for name, took in layer["seconds"].items()
        ]
        equal = "outputs equal" if layer["equal"] else "OUTPUTS DIFFER"
        same = layer.get("speedup_same_attention")
        same = f" with PyTorch's attention, {same:.2f}x as with the same attention" if same else ""
        keys = ", ".join(
            f"{layer['heads'][name]} {name} heads over {count:,} keys" for name, count in layer["kv_tokens"].items()
        )
        return [
            f"{place}, {report['dtype']}; {layer['chunk_tokens']:,} queries, {keys}",
            *lines(head, rows),
            f"pages are {layer['speedup']:.2f}x as fast as concatenation{same}; {equal}, "
            f"relative difference {max(layer['difference'].values()):.1e}",
            *_noted(report),
        ]
    ceilings = report["ceilings"]
    latent = "x".join(map(str, report["latent"]))
    return [
        f"{report['model']}, {report['layers']} layers, latents {latent}, {report['precision']}, "
        f"decoder {report['decoder']}; {place}",
        *lines(COLUMNS, [_row(row) for row in report["results"]]),
        f"ceilings of this run: {ceilings['tflops']:.3g} TFLOP/s, {ceilings['gbps']:.3g} GB/s; "
        f"medians of {report['repeats']} interleaved rounds",
        *_noted(report),
    ]


def _row(row: Mapping[str, Any]) -> list[Any]:
    """Return the values of a row in the order of `COLUMNS`."""
    if "error" in row:
        return [f"{row['policy']}: {row['error']}", row["context"], *[None] * (len(COLUMNS) - 2)]
    share = row.get("share_of_roofline")
    return [
        row["policy"],
        row["context"],
        row["fps_denoise"],
        row["fps_end_to_end"],
        _times(row.get("speed_vs_full")),
        *(1e3 * row["seconds"][stage]["median"] for stage in ("denoise", "context")),
        row["kv_bytes"] / 1e6,
        *(row[name] / 1e6 if name in row else None for name in ("kv_bytes_between", "kv_bytes_allocated")),
        row["peak_bytes"] / 1e6,
        row.get("tflops"),
        row.get("gbps"),
        None if share is None else f"{100 * share:.0f} %",
        _times(row.get("over_bare")),
    ]


def _times(value: float | None) -> str | None:
    """Format a ratio."""
    return None if value is None else f"{value:.2f}x"


def official_table(official: Mapping[str, Any]) -> list[str]:
    """Format the paper's figures, with the hardware they were measured on, as lines for the terminal."""
    notes = {True: " (second hand)", False: ""}
    rows = [
        [row["model"] + notes[row["second_hand"]], row["full"], row["forcing-kv"], row["ratio"]]
        for row in official["rows"]
    ]
    heading = f"reported in {official['source']}, {official['hardware']}; {official['scope']}:"
    return [heading, *lines(["model", "full", "forcing-kv", "ratio"], rows)]


def check_kinds(one_layer: bool, other: Mapping[str, Any]) -> None:
    """Check that both reports are of one layer, or both of streams.

    Args:
        one_layer: Whether the first report is of one layer.
        other: The second report.

    Raises:
        ValueError: They are not.
    """
    if one_layer != ("attention" in other):
        raise ValueError("a report of one layer (--attention) can only be compared with another one")


def against(report: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Divide a report by another one, and list the settings in which they differ.

    Args:
        report: The first report.
        other: The second one, by which it is divided, row by row of the same policy and context.

    Raises:
        ValueError: As in `check_kinds`, or they have no row in common.
    """
    check_kinds("attention" in report, other)
    settings = (
        "model",
        "layers",
        "latent",
        "dtype",
        "precision",
        "decoder",
        "compiled",
        "graphs",
        "overlap",
        "hardware",
        "versions",
    )
    differ = {key: [other.get(key), report.get(key)] for key in settings if report.get(key) != other.get(key)}
    if _taken(report) != _taken(other):
        differ["kernels"] = [_taken(other), _taken(report)]
    if "attention" in report:
        ours, theirs = report["attention"]["seconds"], other["attention"]["seconds"]
        return {
            "differ": differ,
            "seconds": {way: ours[way]["median"] / theirs[way]["median"] for way in ours if way in theirs},
        }
    before = {(row["policy"], row["context"]): row for row in other["results"] if "error" not in row}
    rows = [
        {"policy": row["policy"], "context": row["context"]}
        | {key: row[key] / old[key] if row[key] and old[key] else None for key in COMPARED}
        for row in report["results"]
        if "error" not in row and (old := before.get((row["policy"], row["context"])))
    ]
    if not rows:
        raise ValueError("the two reports have no policy at the same context in common")
    return {"differ": differ, "ratios": rows}


def against_table(comparison: Mapping[str, Any], name: str) -> list[str]:
    """Format a comparison as lines for the terminal.

    Args:
        comparison: From `against`.
        name: Of the other report.
    """
    notes = [
        f"differs from {name} in {key}: {old} there, {new} here" for key, (old, new) in comparison["differ"].items()
    ]
    if "seconds" in comparison:
        return [
            *notes,
            *lines(
                [f"this / {name}", "seconds"], [[way, _times(value)] for way, value in comparison["seconds"].items()]
            ),
        ]
    rows = [[row["policy"], row["context"], *(_times(row[key]) for key in COMPARED)] for row in comparison["ratios"]]
    return [
        *notes,
        *lines([f"this / {name}", "context", "denoise FPS", "end-to-end FPS", "KV bytes", "peak bytes"], rows),
    ]


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw bars of denoising speed, with its share of this run's roofline, and of KV memory, per policy and context.

    Args:
        report: Of streams.
        target: The file to write: .png, .svg or .pdf.
    """
    import pandas as pd
    import seaborn as sns

    rows = [row for row in report["results"] if "error" not in row]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    hatches = ("", "//", "xx", "..", "\\\\", "++", "oo", "--")
    row_of = {(row["policy"], row["context"]): row for row in rows}
    speed = "video frames / s of denoising"
    memory = "KV cache, MB"
    context = "context, latent frames"
    lengths = sorted({row["context"] for row in rows})
    data = pd.DataFrame(
        [
            {"policy": row["policy"], context: row["context"], speed: row["fps_denoise"], memory: row["kv_bytes"] / 1e6}
            for row in rows
        ]
    )
    title = f"{{model}}, {report['layers']} layers, {report['precision']}, {{device}}, {{date}}"
    with drawn(report, target, title=title, bottom=0.06) as axes:
        for axis, what in zip(axes, (speed, memory), strict=True):
            sns.barplot(
                data,
                x=context,
                y=what,
                order=lengths,
                hue="policy",
                hue_order=policies,
                palette="colorblind",
                ax=axis,
                legend=False,
            )
            for i, (bars, policy) in enumerate(zip(axis.containers, policies, strict=True)):
                shown = [row_of[policy, length] for length in lengths if (policy, length) in row_of]
                for bar in bars:
                    bar.set_hatch(hatches[i % len(hatches)])
                axis.bar_label(bars, [_bar(row, what is speed) for row in shown], padding=2, fontsize=8)
            axis.margins(y=0.15)
        axes[0].set_title("speed, and its share of what this machine allows (roofline)", fontsize=10)
        axes[1].set_title("memory", fontsize=10)
        axes[0].figure.legend(axes[0].containers, policies, loc="lower center", ncols=len(policies), frameon=False)


def _bar(row: Mapping[str, Any], speed: bool) -> str:
    """Return the label of a bar."""
    if not speed:
        return f"{row['kv_bytes'] / 1e6:.3g}"
    share = row.get("share_of_roofline")
    return f"{row['fps_denoise']:.3g}" + (f"\n{100 * share:.0f} %" if share else "")
