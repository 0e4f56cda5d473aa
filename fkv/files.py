"""Files that users give: read up to a bound, with a sentence on what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_OBJECTS = 1 << 20  # lists and objects in a file of JSON: reading takes time by their number


def read_text(path: str | Path, most: int) -> str:
    """Read a text file.

    Args:
        path: Of the file.
        most: Bytes at most.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large or no text; says so of it by name.
    """
    path = Path(path)
    with path.open("rb") as file:
        return decode(file.read(most + 1), most, path.name)


def decode(data: bytes, most: int, name: str) -> str:
    """Decode the text of a file, without the byte order mark with which editors on Windows begin it.

    Args:
        data: What was read of it, up to one byte more than `most`.
        most: Bytes at most.
        name: How an error calls it.

    Raises:
        ValueError: It is too large or no text.
    """
    if len(data) > most:
        raise ValueError(f"{name} is larger than {most / (1 << 20):g} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not a text file") from None


def parse_json(text: str, name: str) -> Any:
    """Read JSON.

    Args:
        text: The JSON.
        name: How an error calls it.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or holds too many objects or a number with too many digits.
    """
    if text.count("[") + text.count("{") > MAX_OBJECTS:
        raise ValueError(f"{name} holds more than {MAX_OBJECTS:,} lists and objects")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise ValueError(f"{name} holds a number with too many digits") from None


def read_json(path: str | Path, most: int) -> Any:
    """Read a file of JSON. Raises what `read_text` and `parse_json` do."""
    return parse_json(read_text(path, most), Path(path).name)
