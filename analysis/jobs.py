"""Jobs of an evaluation: records that a later run continues from, and processes to spread over."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fkv.files import parse_json
from fkv.models import registry
from fkv.models.base import VideoModel

from .profile import checkpoint_hash

Record = dict[str, Any]


class Identity(NamedTuple):
    """What tells the records of one model from those of another.

    Args:
        model: Its name.
        checkpoint: `checkpoint_hash` of its weights.
        precision: Of its transformer.
    """

    model: str
    checkpoint: str
    precision: str


def identity_of(model: VideoModel) -> Identity:
    """The identity of a loaded model."""
    return Identity(model.name, checkpoint_hash(model.weights, model.adapters), model.precision)


@lru_cache(maxsize=1)
def load_once(name: str, device: str, precision: str | None, **setup: str) -> VideoModel:
    """Load a model in a process of its own, which then has one thread, and keep it for the next job."""
    torch.set_num_threads(1)
    return registry.load(name, device, precision=precision, **setup)


def read_records(file: Path) -> list[Record]:
    """Read the records of a file, one a line, and remove a last line that was cut off.

    Args:
        file: It may be missing; its folder is made then.

    Raises:
        ValueError: A line is not a record.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
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


def over_processes(function: Callable[..., Any], jobs: Sequence[tuple], workers: int) -> Iterator[Any]:
    """Call a function with every job in processes of their own, and yield the results as they are ready.

    Args:
        function: A function of a module; called as `function(*job)`. What it raises is raised here.
        jobs: Arguments of the calls.
        workers: Processes.
    """
    # Ctrl-C reaches all processes; only this one reports it.
    ignore = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), *ignore) as pool:
        for future in as_completed([pool.submit(function, *job) for job in jobs]):
            yield future.result()
