"""A report of an evaluation that grows: further policies join it, in another run or on another machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkv.files import read_json
from fkv.records import Record

MAX_REPORT = 64 << 20  # bytes
# What a setting is called where a record does not name it.
UNNAMED = {"story": "no storyboard", "steps": "the model's number of steps", "timing": "one stream at a time"}


def read_report(path: Path | None) -> dict[str, Any]:
    """Read an earlier report to continue.

    Args:
        path: Its file; None, a missing, empty or special file stands for a report without records.

    Raises:
        ValueError: The file holds something else.
    """
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return {"records": []}
    report = read_json(path, MAX_REPORT)
    records = report.get("records") if isinstance(report, dict) else None
    if not isinstance(records, list) or not all(isinstance(each, dict) and "adherence" in each for each in records):
        raise ValueError(f"{path} is not a report of fkv eval, which would continue it; name another file")
    return report


def check_settings(path: Path | None, records: Sequence[Record], wanted: Mapping[str, Iterable[Any]]) -> None:
    """Check that records were made with the settings of a run that continues them.

    Args:
        path: Where they are from, for the error.
        records: The records.
        wanted: Field of a record -> the values that it must take in them.

    Raises:
        ValueError: Another setting.
    """
    for name, values in wanted.items():
        expected = set(values)
        found = {record.get(name) for record in records}
        if records and found != expected:
            raise ValueError(
                f"{path} holds records of {_told(name, found)}, not of {_told(name, expected)}; "
                f"evaluate with its settings, remove it, or name another file"
            )


def _told(name: str, values: set[Any]) -> str:
    """A setting in words."""
    if name in ("prompt", "seed"):
        return f"{len(values)} {name}{'' if len(values) == 1 else 's'}"
    return " and ".join(sorted(UNNAMED.get(name, "none") if value is None else f"{name} {value}" for value in values))


def joined(earlier: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Add records to earlier ones; one of the same policy, prompt and seed takes the place of the earlier one."""
    found = {(record["policy"], record["prompt"], record["seed"]): record for record in (*earlier, *new)}
    return list(found.values())
