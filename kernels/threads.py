"""Threads of a processor: all of them for products and attention, one for the small operations between.

Waking a second thread takes longer than a small operation (figures in assets/benchmarks/README.md); the results are the
same to the last bit. PyTorch's own setter does not serve here: threads that start meanwhile would inherit its number.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_between = threading.local()  # `count`: the threads that `by_all_threads` gives back to this thread's calls


@functools.cache
def _setter() -> Callable[[int], None] | None:
    """Return what sets the calling thread's number of threads; None where PyTorch offers no way to.

    OpenMP's loops and MKL's products must agree: a loop with fewer threads than the last one ends the surplus threads,
    and the next one has to start them again.
    """
    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.PyDLL(torch._C.__file__)
        setters = [library.omp_set_num_threads]
        if torch.backends.mkl.is_available():
            setters.append(library.MKL_Set_Num_Threads_Local)
    except (OSError, AttributeError):
        return None
    torch.set_num_threads(torch.get_num_threads())  # from then on MKL keeps to its number

    def set_threads(count: int) -> None:
        for setter in setters:
            setter(count)

    return set_threads


@contextmanager
def one_thread_between() -> Iterator[None]:
    """Use one thread in the calling thread, except inside functions that are decorated with `by_all_threads`."""
    count = torch.get_num_threads()
    set_threads = _setter() if count > 1 else None
    if set_threads is None:
        yield
        return
    before = getattr(_between, "count", None)
    _between.count = count
    set_threads(1)
    try:
        yield
    finally:
        set_threads(count)
        _between.count = before


def by_all_threads(function: Callable[P, R]) -> Callable[P, R]:
    """Run with all threads even inside `one_thread_between`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or (count := getattr(_between, "count", None)) is None:
            return function(*args, **kwargs)
        set_threads = _setter()
        assert set_threads is not None, "`one_thread_between` has used it"
        set_threads(count)
        try:
            return function(*args, **kwargs)
        finally:
            set_threads(1)

    return call
