"""Records in a file, one a line: a later run continues from them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fkv.files import parse_json

Record = dict[str, Any]


def read_records(file: Path) -> list[Record]:
    """Read the records of a file, one a line, without a last line that was cut off.

    Raises:
        ValueError: There is no such file, or a line is not a record.
    """
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no file {file} with records") from None
    try:
        return [_record(line) for line in _whole(text).decode("utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(
            f"{file} has a line that is not a record ({error}); remove the line or choose another folder"
        ) from None


def resume_records(file: Path) -> list[Record]:
    """Read the records of a file that a run goes on with, and remove a last line that was cut off.

    Args:
        file: It may be missing; its folder is made then.

    Raises:
        ValueError: A line is not a record.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        return []
    whole = len(_whole(file.read_bytes()))
    if whole < file.stat().st_size:
        os.truncate(file, whole)  # in place, so that no moment is without the whole records
    return read_records(file)


def append_record(file: Path, record: Record) -> None:
    """Append a record to a file as one line."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def _record(line: str) -> Record:
    record = parse_json(line, "it")
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    return record


def _whole(text: bytes) -> bytes:
    """The lines of a text that have an end."""
    return text[: text.rfind(b"\n") + 1]
