"""Jobs of an evaluation, spread over processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from typing import Any

import torch

from fkv.models import registry
from fkv.models.base import VideoModel


@lru_cache(maxsize=1)
def load_once(name: str, device: str, precision: str | None, **setup: str) -> VideoModel:
    """Load a model in a process of its own, which then has one thread, and keep it for the next job."""
    torch.set_num_threads(1)
    return registry.load(name, device, precision=precision, **setup)


def over_processes(function: Callable[..., Any], jobs: Sequence[tuple], workers: int) -> Iterator[Any]:
    """Call a function with every job in processes of their own, and yield the results as they are ready.

    Args:
        function: A function of a module; called as `function(*job)`. What it raises is raised here, and no job begins
            after that.
        jobs: Arguments of the calls.
        workers: Processes.
    """
    # Ctrl-C reaches all processes; only this one reports it.
    ignore = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), *ignore)
    try:
        for future in as_completed([pool.submit(function, *job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
