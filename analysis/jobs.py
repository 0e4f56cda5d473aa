"""Jobs of an evaluation: here, spread over processes, or over a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from typing import Any, TypeVar

import torch

from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.parallel.ray_map import over_ray

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def load_once(name: str, device: str, precision: str | None, **setup: str) -> VideoModel:
    """Load a model in a process of its own, which then has one thread, and keep it for the next job."""
    torch.set_num_threads(1)
    return registry.load(name, device, precision=precision, **setup)


def check_named(model: VideoModel | str, workers: int, ray: str | None) -> None:
    """Raise ValueError for a loaded model where other processes must load it."""
    if (workers > 1 or ray) and not isinstance(model, str):
        raise ValueError("several processes need the model by name, so that each can load it")


def run_jobs(
    here: Callable[..., Result],
    there: Callable[..., Result],
    setup: tuple[Any, ...],
    jobs: Sequence[tuple[Any, ...]],
    workers: int = 1,
    ray: str | None = None,
) -> Iterator[Result]:
    """Run jobs and yield their results as they are ready.

    Args:
        here: Called as `here(*job)` where one process is enough.
        there: A function of a module, called as `there(*setup, *job)` in other processes.
        setup: How another process loads what it needs: name of a model, its device, and what else `there` takes.
        jobs: Arguments of the calls.
        workers: Processes.
        ray: Address of a Ray cluster to use instead.
    """
    spread = [(*setup, *job) for job in jobs]
    if ray:
        yield from over_ray(there, spread, ray, setup[1])
    elif workers > 1:
        yield from over_processes(there, spread, workers)
    else:
        for job in jobs:
            yield here(*job)


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
