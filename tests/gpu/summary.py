"""What a GPU run found, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkv.bench import report
from fkv.bench.official import OFFICIAL

TOP = 12  # kernels that are listed of a chunk
NAME = 60  # characters of a kernel's name


def text(folder: Path, done: Sequence[Mapping[str, Any]]) -> str:
    """Say what became of every part, then what each found.

    Args:
        folder: With a JSON file for each part that ended.
        done: For each part its `name`, `status` and `seconds`.
    """
    lines = report.lines(
        ["part", "seconds", "status"], [[part["name"], part["seconds"], part["status"]] for part in done]
    )
    refused: dict[str, str] = {}
    for part in done:
        file = folder / f"{part['name']}.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        lines += ["", f"== {part['name']}", *_lines(found)]
        for choice in found.get("kernels", {}).get("choices", ()):
            if choice["problem"]:
                refused[f"{choice['kernel']} {choice['signature']}"] = choice["problem"]
    lines += ["", "== Triton kernels that streams could not use", *(f"{k}: {why}" for k, why in refused.items())]
    if not refused:
        lines.append("none")
    lines += ["", f"== {OFFICIAL['source']}, for comparison", *report.official_table(OFFICIAL)]
    return "\n".join(lines) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What one part found."""
    if "results" in found or "attention" in found:
        yield from report.table(found)
    elif "runs" in found:
        yield from _parity(found)
    elif "chunks" in found:
        yield from _by_kernel(found)
    elif "tests" in found:
        yield ", ".join(f"{count} {outcome}" for outcome, count in found["tests"].items())
        yield from (f"{test}: {why}" for test, why in found["failures"].items())
    elif "ceilings" in found:
        yield f"{found['hardware']['device']}; " + ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v)
        for precision, best in found["ceilings"].items():
            yield f"{precision}: {best['tflops']:.3g} TFLOP/s, {best['gbps']:.3g} GB/s"
    else:
        for policy, row in found["policies"].items():
            yield f"{policy}: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items())


def _parity(found: Mapping[str, Any]) -> Iterator[str]:
    """How many comparisons with golden data are within tolerance, and those that are not."""
    parts = list(_compared("", found["runs"]))
    good = [value for _, value in parts if value["ok"]]
    worst = max((value["max"] for _, value in parts if "max" in value), default=0.0)
    yield f"{len(good)} of {len(parts)} within tolerance, largest difference {worst:.2e}; {found['device']}"
    yield from (
        f"{name}: {value.get('max', value.get('wrong', 'differs'))}" for name, value in parts if not value["ok"]
    )


def _compared(name: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every comparison of a report of `fkv parity`."""
    if "ok" in value:
        yield name, value
        return
    for key, inner in value.items():
        yield from _compared(f"{name} {key}".strip(), inner)


def _by_kernel(found: Mapping[str, Any]) -> Iterator[str]:
    """The longest kernels of a chunk under each policy."""
    for policy, chunk in found["chunks"].items():
        yield f"{policy}: {1e3 * chunk['wall_s']:.3g} ms a chunk, {1e3 * chunk['device_s']:.3g} ms in kernels"
        rows = [
            [kernel["name"][:NAME], kernel["calls"], 1e3 * kernel["seconds"], kernel["seconds"] / chunk["device_s"]]
            for kernel in chunk["kernels"][:TOP]
        ]
        yield from report.lines(["kernel", "calls", "ms", "share"], rows)
