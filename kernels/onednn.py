"""What oneDNN, which computes PyTorch's products on a CPU, offers beyond PyTorch's own calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch

_precision = threading.Lock()


@lru_cache
def computes_bfloat16() -> bool:
    """Whether oneDNN has a native bfloat16 matmul here."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def float32_by_onednn() -> Iterator[None]:
    """Compute float32 products with oneDNN, where PyTorch otherwise calls a library that is slow on some processors.

    PyTorch's only switch for it is permission to round the factors to bfloat16, and it holds for the whole process. So
    one thread at a time is let in, and it is only for processors where `multiplies_float32` finds that nothing is
    rounded.
    """
    matmul = cast(Any, torch.backends.mkldnn).matmul
    with _precision:
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@lru_cache
def multiplies_float32() -> bool:
    """Whether `float32_by_onednn` exists (from PyTorch 2.9 on) and keeps full float32 precision on this processor."""
    if not hasattr(torch.backends.mkldnn, "matmul") or not computes_bfloat16():
        return False
    a = torch.linspace(-1, 1, 2 * 256 * 64).view(2, 256, 64)
    b = torch.linspace(-1, 2, 2 * 64 * 256).view(2, 64, 256)
    with float32_by_onednn():
        result = a @ b
    exact = a.double() @ b.double()
    return bool((result - exact).norm() <= 1e-5 * exact.norm())
