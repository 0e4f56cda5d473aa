"""Records in a file, one a line: a later run continues from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fkv.files import parse_json

Record = dict[str, Any]


def read_records(file: Path) -> list[Record]:
    """Read the records of a file, one a line, and remove a last line that was cut off.

    Args:
        file: It may be missing; its folder is made then.

    Raises:
        ValueError: A line is not a record.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    try:
        return [parse_json(line, "it") for line in whole.splitlines()]
    except ValueError as error:
        raise ValueError(
            f"{file} has a line that is not a record ({error}); remove the line or choose another folder"
        ) from None


def append_record(file: Path, record: Record) -> None:
    """Append a record to a file as one line."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
