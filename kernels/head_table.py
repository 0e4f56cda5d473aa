"""Where each head of a layer keeps its keys and values, in the form in which one launch serves all head groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

_used: ContextVar[list[Tensor] | None] = ContextVar("_used", default=None)


@contextmanager
def tables_used() -> Iterator[list[Tensor]]:
    """Collects the tables that are asked for within: recorded launches read them at their addresses for as long as they are replayed."""
    token = _used.set([])
    try:
        yield _used.get()
    finally:
        _used.reset(token)


@lru_cache(maxsize=4096)
def _rows(groups: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    rows = [
        (keys + head * keys_head, values + head * values_head, keys_batch, values_batch, last)
        for heads, keys, keys_head, keys_batch, values, values_head, values_batch, last in groups
        for head in range(heads)
    ]
    table = torch.tensor(rows, dtype=torch.int64)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def head_table(groups: Sequence[tuple[Tensor, Tensor, int]]) -> Tensor:
    """The head groups of a layer, head by head: int64 [heads, 5] on their device.

    groups: keys and values [batch, heads of the group, tokens, head_dim], whose tokens lie one after another, and a
    number. A row holds the addresses of the head's keys and values, their batch strides in elements, and the group's
    number. Tables are kept, so that steady shapes copy nothing to the device. Raises ValueError for tokens with gaps.
    """
    described = []
    for keys, values, number in groups:
        for buffer in (keys, values):
            if buffer.stride()[2:] != (buffer.shape[3], 1):
                raise ValueError(f"the tokens of a head must lie one after another, the strides are {buffer.stride()}")
        size = keys.element_size()
        sides = [part for x in (keys, values) for part in (x.data_ptr(), x.stride(1) * size, x.stride(0))]
        described.append((keys.shape[1], *sides, number))
    table = _rows(tuple(described), groups[0][0].device)
    if (used := _used.get()) is not None:
        used.append(table)
    return table
