"""Which implementation of a kernel runs: its PyTorch twin or Triton.

The body of every public kernel is its PyTorch twin. For CUDA tensors the environment variable `FKV_TRITON` decides:

    0     the twin. The default: the Triton kernels are tested in Triton's interpreter and compiled for Hopper GPUs, but
          they have not yet been run on one.
    1     Triton.
    auto  whichever is faster, measured once per kernel and shape on the tensors at hand. Run every shape once before
          capturing a CUDA graph. `choices()` reports what was measured.

CPU tensors always take the twin.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

try:
    import triton
    import triton.language as tl
except ImportError:  # there is Triton for Linux alone
    triton = tl = None

VARIABLE = "FKV_TRITON"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Choice:
    """What was measured for one kernel and shape: seconds per call of both implementations, and the faster one."""

    kernel: str
    signature: tuple
    seconds: dict[str, float]
    fastest: str


_choices: dict[tuple, Choice] = {}


def jit(function: Callable) -> Any:
    """`triton.jit` where Triton is installed; elsewhere the function as it is, which is never launched."""
    return triton.jit(function) if triton else function


def with_triton(launch: Callable) -> Callable[[Callable], Callable]:
    """Decorates a PyTorch twin: calls go to it or to `launch`, its Triton implementation with the same parameters.

    Both stay reachable as `.twin` and `.triton`. They must be idempotent, since measuring calls them repeatedly.
    """

    def decorate(twin: Callable) -> Callable:
        @functools.wraps(twin)
        def kernel(first: Tensor, *args: Any, **options: Any) -> Any:
            wanted = os.environ.get(VARIABLE, "0") if triton and first.is_cuda else "0"
            if wanted == "auto":
                call = functools.partial(_run, kernel, first, *args, **options)
                wanted = "1" if choose(twin.__name__, (first, args, options), call).fastest == "triton" else "0"
            return (launch if wanted == "1" else twin)(first, *args, **options)

        kernel.twin, kernel.triton = twin, launch
        return kernel

    return decorate


def _run(kernel: Any, *args: Any, implementation: str, **options: Any) -> Any:
    return (kernel.triton if implementation == "triton" else kernel.twin)(*args, **options)


def choose(name: str, arguments: Any, call: Callable[..., Any]) -> Choice:
    """The faster implementation for arguments of this shape; `call(implementation=...)` runs one. Measured once."""
    signature = _signature(arguments)
    if (name, signature) not in _choices:
        seconds = {}
        for implementation in ("torch", "triton"):
            run = functools.partial(call, implementation=implementation)
            run()
            timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            seconds[implementation] = timer.blocked_autorange(min_run_time=0.02).median
        _choices[name, signature] = Choice(name, signature, seconds, min(seconds, key=seconds.get))
    return _choices[name, signature]


def choices() -> list[Choice]:
    """What `auto` has measured so far in this process."""
    return list(_choices.values())


def _signature(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype), str(value.device)
    if isinstance(value, (tuple, list)):
        return tuple(map(_signature, value))
    if isinstance(value, dict):
        return tuple((key, _signature(item)) for key, item in value.items())
    return value
