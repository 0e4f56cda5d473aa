"""Threads of a processor: all of them for products and attention, one for the small operations between.

To wake a second thread takes longer than a small operation. On two cores of an AMD EPYC without bfloat16, chunks of the tiny model take
a tenth less time so, with the same pictures to the last bit. PyTorch's own setter would not do: threads that begin meanwhile would take
over its number.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_between = threading.local()
"""`count`: how many threads `by_all_threads` gives to what is called by this one."""


@functools.cache
def _setter() -> Callable[[int], None] | None:
    """Sets the calling thread's number, for OpenMP's loops and for MKL's products; None where PyTorch shows no way to do so.

    The two must agree: a loop by fewer threads than the last ends those that it has no use for, and the next has to begin them again.
    """
    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.PyDLL(torch._C.__file__)
        setters = [
            library.omp_set_num_threads,
            *([library.MKL_Set_Num_Threads_Local] if torch.backends.mkl.is_available() else []),
        ]
    except (OSError, AttributeError):
        return None
    torch.set_num_threads(torch.get_num_threads())  # from then on MKL keeps to its number
    return lambda count: [each(count) for each in setters]


@contextmanager
def one_thread_between() -> Iterator[None]:
    """Within, the calling thread computes alone what is not `by_all_threads`."""
    count = torch.get_num_threads()
    use = _setter() if count > 1 else None
    if use is None:
        yield
        return
    before, _between.count = getattr(_between, "count", None), count
    use(1)
    try:
        yield
    finally:
        use(count)
        _between.count = before


def by_all_threads(function: Callable) -> Callable:
    """Decorates what is worth waking all threads for, also `one_thread_between`."""

    @functools.wraps(function)
    def call(*args, **options):
        if torch.compiler.is_compiling() or (count := getattr(_between, "count", None)) is None:
            return function(*args, **options)
        use = _setter()
        use(count)
        try:
            return function(*args, **options)
        finally:
            use(1)

    return call
