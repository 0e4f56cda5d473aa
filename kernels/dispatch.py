"""Choose the implementation of a kernel: its PyTorch twin or Triton.

The body of every public kernel is its PyTorch twin. For CUDA tensors the environment variable `FKV_TRITON` decides:

    auto  the default: Triton where it agrees with the twin and is not clearly slower (`TORCH_MARGIN`), measured once
          per kernel, type and size (to the next power of two) on the tensors of the call. `choices()` reports the
          results.
    0     the twin.
    1     Triton.

CPU tensors always take the twin; a twin can choose between two implementations of its own with `fastest`. The Triton
kernels are tested in Triton's interpreter and compiled for Hopper GPUs, but have not yet run on one.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.benchmark import Timer

from .threads import one_thread_between

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton is published for Linux only
    triton = tl = None

TRITON_VARIABLE = "FKV_TRITON"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# The twin must be this many times as fast as Triton to be chosen. The two round differently, so a stream's frames
# depend on the choice; the margin keeps timing noise from deciding it.
TORCH_MARGIN = 1.15

P = ParamSpec("P")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The implementation chosen for one kernel and size.

    Attributes:
        kernel: Name of the kernel.
        signature: Device, types and sizes of the arguments.
        seconds: Least seconds per call of each implementation.
        fastest: The chosen implementation, a key of `seconds`.
        problem: Why Triton cannot be used; empty where it can.
    """

    kernel: str
    signature: tuple
    seconds: dict[str, float]
    fastest: str
    problem: str = ""


class Kernel(Protocol[P]):
    """A kernel as `with_triton` returns it: one function, with both implementations beside it."""

    twin: Callable[..., Tensor]
    triton: Callable[..., Tensor]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...


_choices: dict[tuple, Choice] = {}
_choosing = threading.RLock()  # reentrant: a twin may have a choice of its own to make


def jit(function: Callable) -> Any:
    """Return `triton.jit(function)`. Without Triton, return the function unchanged; it is then never called."""
    return triton.jit(function) if triton else function


def constant(value: Any) -> Any:
    """Return a module constant that Triton kernels can read."""
    return tl.constexpr(value) if tl else value


def setting() -> str:
    """Return the value of `FKV_TRITON`.

    Raises:
        ValueError: The variable has another value than auto, 0 or 1.
    """
    value = os.environ.get(TRITON_VARIABLE) or "auto"
    if value not in ("auto", "0", "1"):
        raise ValueError(f"{TRITON_VARIABLE} must be auto, 0 (PyTorch only) or 1 (Triton only), not {value!r}")
    return value


def with_triton(
    launch: Callable[P, Tensor], written: Callable[P, list[Tensor]] | None = None
) -> Callable[[Callable[P, Tensor]], Kernel[P]]:
    """Decorate a PyTorch twin: calls go to it or to its Triton implementation.

    Both stay reachable as `.twin` and `.triton`. They must be idempotent: choosing between them calls them repeatedly.

    Args:
        launch: The Triton implementation, with the parameters of the twin; the first is a tensor.
        written: From the arguments, copies of what the kernel writes besides the tensor that it returns.
    """

    def decorate(twin: Callable[P, Tensor]) -> Kernel[P]:
        @functools.wraps(twin)
        def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            wanted = setting() if triton and cast(Tensor, args[0]).is_cuda else "0"
            if wanted == "auto":

                def run(implementation: str) -> list[Tensor]:
                    return [(launch if implementation == "triton" else twin)(*args, **kwargs)]

                read_written = functools.partial(written, *args, **kwargs) if written else list
                choice = choose(twin.__name__, (*args, kwargs), run, read_written)
                wanted = "1" if choice.fastest == "triton" else "0"
            return (launch if wanted == "1" else twin)(*args, **kwargs)

        kernel = cast(Kernel[P], call)
        kernel.twin = twin
        kernel.triton = launch
        return kernel

    return decorate


def choose(
    name: str,
    arguments: Any,
    run: Callable[[str], list[Tensor]],
    written: Callable[[], list[Tensor]] = list,
) -> Choice:
    """Choose the implementation for arguments of this size, once per process.

    Args:
        name: Name of the kernel.
        arguments: Any tree that holds the kernel's tensors.
        run: From `"torch"` or `"triton"`, what that implementation returns.
        written: Returns copies of what the last run wrote besides.
    """
    signature = _signature(arguments)
    with _choosing:
        if (name, signature) not in _choices:
            problem = _problem(run, written)
            if problem:
                log.warning("the Triton kernel %s is not used: %s", name, problem)
            names = ["torch"] if problem else ["torch", "triton"]
            runs = {each: functools.partial(run, each) for each in names}
            _measure(name, signature, runs, TORCH_MARGIN, _seconds, problem)
        return _choices[name, signature]


def fastest(name: str, arguments: Any, runs: Mapping[str, Callable[[], Any]], margin: float) -> str:
    """Choose the implementation for a CPU and arguments of this size, once per process.

    Measured in one thread: on a busy machine, several threads would mostly measure waiting.

    Args:
        name: Name of the kernel.
        arguments: Any tree that holds the kernel's tensors.
        runs: The implementations by name. The last one is chosen unless another is more than `margin` times as fast.
        margin: See `runs`.

    Returns:
        A key of `runs`.
    """
    signature = _signature(arguments)
    with _choosing, one_thread_between():
        if (name, signature) not in _choices:
            _measure(name, signature, runs, margin, _seconds_of_one_thread)
        return _choices[name, signature].fastest


def _measure(
    name: str,
    signature: tuple,
    runs: Mapping[str, Callable[[], Any]],
    margin: float,
    timed: Callable[[Callable[[], Any]], float],
    problem: str = "",
) -> None:
    """Time the implementations in turn and store the choice."""
    rounds = [{each: timed(run) for each, run in runs.items()} for _ in range(5)]
    seconds = {each: min(times[each] for times in rounds) for each in runs}
    last = list(runs)[-1]
    chosen = min(runs, key=lambda each: seconds[each] * (1 if each == last else margin))
    _choices[name, signature] = Choice(name, signature, seconds, chosen, problem)


def choices() -> list[Choice]:
    """Return the choices made so far in this process."""
    return list(_choices.values())


def _problem(run: Callable[[str], list[Tensor]], written: Callable[[], list[Tensor]]) -> str:
    """Return why Triton cannot be used; empty where it returns and writes what the twin does."""
    try:
        # Triton runs first: what it fails to write must not be there from its twin.
        results = run("triton") + written()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    expected = run("torch") + written()
    for ours, theirs in zip(results, expected, strict=True):
        limit = 1e-3 if theirs.dtype == torch.float32 else 2e-2
        if not (ours.float() - theirs.float()).norm() <= limit * theirs.float().norm():
            return "its result differs from PyTorch's"
    return ""


def _seconds(run: Callable[[], Any]) -> float:
    """Return the seconds of a call when nothing disturbs it."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=0.01).times)


def _seconds_of_one_thread(run: Callable[[], Any]) -> float:
    """Like `_seconds`, without PyTorch's timer, which would set the number of threads for the whole process."""
    return min(timeit.repeat(run, number=1, repeat=5))


def _signature(arguments: Any) -> tuple:
    """Return device, types, shape of the first tensor and elements of all tensors, sizes to the next powers of two."""
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    types = sorted({str(tensor.dtype) for tensor in tensors})
    shape = tuple(_bucket(size) for size in tensors[0].shape)
    elements = sum(tensor.numel() for tensor in tensors)
    return str(tensors[0].device), tuple(types), shape, _bucket(elements)


def _bucket(size: int) -> int:
    """Round up to a power of two."""
    return 1 << max(size - 1, 0).bit_length()
