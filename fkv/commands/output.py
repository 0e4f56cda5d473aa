"""Files that a command writes: paths are checked before any work, and no report is lost after it."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

PICTURES = (".png", ".svg", ".pdf")  # endings of files that figures can be drawn to


def outputs(args: argparse.Namespace, *options: str) -> list[Path | None]:
    """Check the paths that a command writes to.

    Args:
        args: The parsed arguments.
        *options: Names of options, `name` for a file and `name/` for a folder.

    Returns:
        A path per option, None where the option was not used and for `--json -`, which is stdout.

    Raises:
        ValueError: A path cannot be written, or two options name the same one.
    """
    found: dict[str, Path | None] = {}
    for option in options:
        name = option.rstrip("/")
        text = getattr(args, name)
        if text == "":
            raise ValueError(
                f"{_option(name)} is empty; name a {'file' if option == name else 'folder'} or leave it out"
            )
        if name == "json" and text == "-":
            text = None
        try:
            check = _file if option == name else _folder
            found[name] = None if text is None else check(text)
        except OSError as error:
            raise ValueError(f"cannot write {text}: {error.strerror}") from None
    taken: dict[Path, str] = {}
    for name, path in found.items():
        if path and not path.is_char_device() and (other := taken.setdefault(path.resolve(), name)) != name:
            raise ValueError(f"{_option(other)} and {_option(name)} both name {path}; each needs a path of its own")
    return list(found.values())


def _option(name: str) -> str:
    """The option of an attribute, as it is typed."""
    return f"--{name.replace('_', '-')}"


def _file(text: str) -> Path:
    """A file that can be written; one that does not exist is not left behind."""
    target = Path(text)
    if target.is_dir():
        raise ValueError(f"{text} is a folder; name a file in it")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise ValueError(f"cannot write {text}: the folder {target.parent} does not exist or is not writable")
    existed = target.exists()
    if not existed or target.is_file():
        target.open("ab").close()
    if not existed:
        target.unlink()
    return target


def _folder(text: str) -> Path:
    """A folder that exists or can be created."""
    target = Path(text)
    nearest = next(path for path in (target.absolute(), *target.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"cannot write {text}: the folder {nearest} is not writable")
    return target


def check_ending(option: str, path: Path | None, *endings: str) -> None:
    """Raise ValueError for a figure or video whose file name has another ending."""
    if path and path.suffix.lower() not in endings:
        *others, last = (ending.removeprefix(".") for ending in endings)
        kinds = " or ".join(filter(None, (", ".join(others), last)))
        found = path.suffix or "a file without an ending"
        raise ValueError(f"--{option} writes {kinds} files, not {found}; name one that ends with {endings[0]}")


def _as_json(value: Any) -> Any:
    """A value with None for numbers that JSON cannot write, NaN and infinities."""
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def emit(report: dict[str, Any], target: Path | None) -> None:
    """Write a report as JSON.

    Args:
        report: What to write.
        target: A file, None for stdout.

    Numbers that are not finite become null.

    Raises:
        ValueError: The file cannot be written any more; the report is on stdout instead.
    """
    text = json.dumps(_as_json(report), indent=1, allow_nan=False)
    if target is None:
        print(text)
        return
    try:
        target.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        print(text)
        raise ValueError(f"cannot write {target}: {error.strerror}; the report is on stdout instead") from None
