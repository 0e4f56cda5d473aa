"""Where a command writes: refused before any work where it cannot, and never lost after it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

PICTURES = (".png", ".svg", ".pdf")


def outputs(args: argparse.Namespace, *options: str) -> list[Path | None]:
    """The paths given with these options, `name` for a file and `name/` for a folder; None where one is not given.

    Raises ValueError for a path that cannot be written and for two options that name the same one.
    """
    found: dict[str, Path | None] = {}
    for option in options:
        name = option.rstrip("/")
        text = getattr(args, name)
        if text == "":
            raise ValueError(f"--{name} is empty; name a {'file' if option == name else 'folder'} or leave it out")
        try:
            found[name] = text and (_file if option == name else _folder)(text)
        except OSError as error:
            raise ValueError(f"cannot write {text}: {error.strerror}") from None
    taken: dict[Path, str] = {}
    for name, path in found.items():
        if path and not path.is_char_device() and (other := taken.setdefault(path.resolve(), name)) != name:
            raise ValueError(f"--{other} and --{name} both name {path}; each needs its own")
    return list(found.values())


def _file(text: str) -> Path:
    target = Path(text)
    if target.is_dir():
        raise ValueError(f"{text} is a folder; name a file in it")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise ValueError(f"cannot write {text}: the folder {target.parent} does not exist or is not writable")
    there = target.exists()
    if not there or target.is_file():
        target.open("ab").close()
    if not there:
        target.unlink()
    return target


def _folder(text: str) -> Path:
    target = Path(text)
    nearest = next(path for path in (target.absolute(), *target.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"cannot write {text}: the folder {nearest} is not writable")
    return target


def check_ending(option: str, path: Path | None, *endings: str) -> None:
    """Raises ValueError for a picture that cannot be drawn as what its name ends with."""
    if path and path.suffix not in endings:
        *others, last = (ending.removeprefix(".") for ending in endings)
        kinds, found = " or ".join(filter(None, (", ".join(others), last))), path.suffix or "a file without an ending"
        raise ValueError(f"--{option} draws {kinds} files, not {found}; name one that ends with {endings[0]}")


def emit(report: dict[str, Any], target: Path | None) -> None:
    """Write a report as JSON to a file, or to stdout without one and where the file cannot be written after all.

    Raises ValueError in that case.
    """
    text = json.dumps(report, indent=1)
    if target is None:
        print(text)
        return
    try:
        target.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        print(text)
        raise ValueError(f"cannot write {target}: {error.strerror}; the report is on stdout instead") from None
