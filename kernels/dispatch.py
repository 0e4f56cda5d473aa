"""Which implementation of a kernel runs: its PyTorch twin or Triton.

The body of every public kernel is its PyTorch twin. For CUDA tensors the environment variable `FKV_TRITON` decides:

    auto  the default: Triton where it agrees with the twin and is not clearly slower (`TORCH_MARGIN`), found out once per kernel, type and
          size (to the next power of two) on the tensors at hand. `choices()` reports what was found.
    0     the twin.
    1     Triton.

CPU tensors always take the twin; `fastest` lets a twin choose between two ways of its own. The Triton kernels are tested in Triton's
interpreter and compiled for Hopper GPUs, but have not yet been run on one.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.benchmark import Timer

from .threads import one_thread_between

try:
    import triton
    import triton.language as tl
except ImportError:  # there is Triton for Linux alone
    triton = tl = None

TRITON_VARIABLE = "FKV_TRITON"
TORCH_MARGIN = 1.15
"""How many times as fast as Triton the twin must be to be taken. They round differently, so a stream depends on which is taken; this
keeps chance from deciding where both take about as long."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was found out about one kernel and size: the least seconds per call, the implementation to take, and why it cannot be Triton."""

    kernel: str
    signature: tuple
    seconds: dict[str, float]
    fastest: str
    problem: str = ""


_choices: dict[tuple, Choice] = {}
_choosing = threading.RLock()  # a twin may have a choice of its own to make


def jit(function: Callable) -> Any:
    """`triton.jit` where Triton is installed; elsewhere the function as it is, which is never launched."""
    return triton.jit(function) if triton else function


def setting() -> str:
    """What `FKV_TRITON` asks for. Raises ValueError when there is no such setting."""
    asked = os.environ.get(TRITON_VARIABLE) or "auto"
    if asked not in ("auto", "0", "1"):
        raise ValueError(f"{TRITON_VARIABLE} is auto, 0 (no Triton kernels) or 1 (nothing else), not {asked!r}")
    return asked


def with_triton(launch: Callable, written: Callable[..., list[Tensor]] | None = None) -> Callable[[Callable], Callable]:
    """Decorates a PyTorch twin: calls go to it or to `launch`, its Triton implementation with the same parameters.

    Both stay reachable as `.twin` and `.triton`. They must be idempotent, since finding out which to take calls them repeatedly.
    written : of the arguments, copies of what the kernel writes besides the tensor that it returns.
    """

    def decorate(twin: Callable) -> Callable:
        @functools.wraps(twin)
        def kernel(first: Tensor, *args: Any, **options: Any) -> Any:
            wanted = setting() if triton and first.is_cuda else "0"
            if wanted == "auto":

                def call(implementation: str) -> list[Tensor]:
                    return [(launch if implementation == "triton" else twin)(first, *args, **options)]

                besides = functools.partial(written, first, *args, **options) if written else list
                wanted = (
                    "1" if choose(twin.__name__, (first, args, options), call, besides).fastest == "triton" else "0"
                )
            return (launch if wanted == "1" else twin)(first, *args, **options)

        kernel.twin, kernel.triton = twin, launch
        return kernel

    return decorate


def choose(
    name: str, arguments: Any, call: Callable[[str], list[Tensor]], written: Callable[[], list[Tensor]] = list
) -> Choice:
    """Which implementation to take for arguments of this size; `call("torch")` and `call("triton")` give what one makes, `written()`
    what it wrote besides. Found out once."""
    signature = _signature(arguments)
    with _choosing:
        if (name, signature) not in _choices:
            problem = _problem(call, written)
            if problem:
                log.warning("the Triton kernel %s is not used: %s", name, problem)
            ways = {each: functools.partial(call, each) for each in ("torch", *([] if problem else ["triton"]))}
            _choose(name, signature, ways, TORCH_MARGIN, _seconds, problem)
        return _choices[name, signature]


def fastest(name: str, arguments: Any, ways: dict[str, Callable[[], Any]], margin: float) -> str:
    """The way for a CPU to take with arguments of this size: the last, unless another is more than `margin` times as fast. Found out
    once, by one thread: where a busy machine lets several wait for each other, all that is measured is how long."""
    signature = _signature(arguments)
    with _choosing, one_thread_between():
        if (name, signature) not in _choices:
            _choose(name, signature, ways, margin, _seconds_of_one_thread)
        return _choices[name, signature].fastest


def _choose(
    name: str,
    signature: tuple,
    ways: dict[str, Callable[[], Any]],
    margin: float,
    timed: Callable[[Callable[[], Any]], float],
    problem: str = "",
) -> None:
    rounds = [{way: timed(run) for way, run in ways.items()} for _ in range(5)]
    seconds = {way: min(each[way] for each in rounds) for way in ways}
    last = list(ways)[-1]
    taken = min(ways, key=lambda way: seconds[way] * (1 if way == last else margin))
    _choices[name, signature] = Choice(name, signature, seconds, taken, problem)


def choices() -> list[Choice]:
    """What `auto` has found out so far in this process."""
    return list(_choices.values())


def _problem(call: Callable[[str], list[Tensor]], written: Callable[[], list[Tensor]]) -> str:
    """Why Triton cannot be taken; empty where it makes what the twin makes."""
    try:
        made = call("triton") + written()  # first, so that what it leaves out is not there from its twin
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wanted = call("torch") + written()
    for ours, theirs in zip(made, wanted):
        limit = 1e-3 if theirs.dtype == torch.float32 else 2e-2
        if not (ours.float() - theirs.float()).norm() <= limit * theirs.float().norm():
            return "its result is another than that of PyTorch"
    return ""


def _seconds(run: Callable[[], Any]) -> float:
    """What a call takes when nothing disturbs it."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=0.01).times)


def _seconds_of_one_thread(run: Callable[[], Any]) -> float:
    """What a call takes when nothing disturbs it. PyTorch's timer would set the number of threads for the whole process."""
    return min(timeit.repeat(run, number=1, repeat=5))


def _signature(arguments: Any) -> tuple:
    """Device, types, and how large: the shape of the first tensor and the elements of all, to the next powers of two."""
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    shape = tuple(_bucket(size) for size in tensors[0].shape)
    return (
        str(tensors[0].device),
        tuple(sorted({str(each.dtype) for each in tensors})),
        shape,
        _bucket(sum(each.numel() for each in tensors)),
    )


def _bucket(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()
