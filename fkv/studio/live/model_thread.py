"""The one thread in which the model computes.

OpenMP keeps a team of threads for every thread that computes. With more threads than processors they sleep between two
parallel loops instead of waiting awake, and waking them takes longer than the loops. The page's events run in many
threads, so they hand the model's work, loading included, to this one. Streams that compute at once
(`fkv.parallel.lockstep`) have a thread each and so no team.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
OVER: Any = object()
_here = threading.local()
_thread = ThreadPoolExecutor(1, "fkv-model", lambda: setattr(_here, "is_model", True))


def call(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work` in the model's thread and wait for it."""
    if hasattr(_here, "is_model"):
        return work(*args, **kwargs)
    return _thread.submit(work, *args, **kwargs).result()


def iterating(work: Callable[P, Generator[T, None, None]]) -> Callable[P, Generator[T, None, None]]:
    """Do every step of a generator function in the model's thread, and its end."""

    def near(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        items = work(*args, **kwargs)
        try:
            while (item := call(next, items, OVER)) is not OVER:
                yield item
        finally:
            call(items.close)

    return near


def iterating_ahead(work: Callable[P, Generator[T, None, None]]) -> Callable[P, Generator[T, None, None]]:
    """Do as `iterating`, and the next step already while the caller works with an item, as a page is told of it."""

    def near(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        items = work(*args, **kwargs)
        try:
            coming = _thread.submit(next, items, OVER)
            while (item := coming.result()) is not OVER:
                coming = _thread.submit(next, items, OVER)
                yield item
        finally:
            call(items.close)

    return near
