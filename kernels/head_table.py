"""Where each head of a layer keeps its keys and values, as a table that lets one launch serve all head groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

from .dispatch import constant

# A row of the table and its columns, as kernels read them: row address = table + head * ROW.
ROW = constant(5)
KEYS = constant(0)  # address of the head's keys in batch entry 0
VALUES = constant(1)  # address of its values
KEYS_STRIDE = constant(2)  # elements from one batch entry to the next in the keys
VALUES_STRIDE = constant(3)  # the same in the values
GROUP_VALUE = constant(4)  # the number that the caller gave for the head's group

_used: ContextVar[list[Tensor] | None] = ContextVar("_used", default=None)


@contextmanager
def tables_used() -> Iterator[list[Tensor]]:
    """Collect the tables that `head_table` returns meanwhile.

    Captured launches read them at their addresses for as long as they are replayed.
    """
    tables: list[Tensor] = []
    token = _used.set(tables)
    try:
        yield tables
    finally:
        _used.reset(token)


@lru_cache(maxsize=4096)
def _rows(groups: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Build the table of `head_table` from its description by numbers alone."""
    rows = [
        (keys + head * keys_head, values + head * values_head, keys_batch, values_batch, number)
        for heads, keys, keys_head, keys_batch, values, values_head, values_batch, number in groups
        for head in range(heads)
    ]
    table = torch.tensor(rows, dtype=torch.int64)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def head_table(groups: Sequence[tuple[Tensor, Tensor, int]]) -> Tensor:
    """Describe the head groups of a layer, head by head.

    Tables are cached, so steady shapes copy nothing to the device.

    Args:
        groups: Per group its keys and values, [batch, heads of the group, tokens, head_dim] with contiguous tokens, and
            a number.

    Returns:
        int64 [heads, `ROW`] on the device of the groups; the columns are described beside `ROW`.

    Raises:
        ValueError: The tokens of a head are not contiguous.
    """
    described: list[tuple[int, ...]] = []
    for keys, values, number in groups:
        for buffer in (keys, values):
            if buffer.stride()[2:] != (buffer.shape[3], 1):
                raise ValueError(f"the tokens of a head must lie one after another, the strides are {buffer.stride()}")
        itemsize = keys.element_size()
        sides = [part for x in (keys, values) for part in (x.data_ptr(), x.stride(1) * itemsize, x.stride(0))]
        described.append((keys.shape[1], *sides, number))
    table = _rows(tuple(described), groups[0][0].device)
    used = _used.get()
    if used is not None:
        used.append(table)
    return table
