"""What oneDNN, which computes PyTorch's products on a CPU, can do beyond PyTorch's own calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

_precision = threading.Lock()


@lru_cache
def computes_bfloat16() -> bool:
    """Whether products in bfloat16 are its own on this machine."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def float32_by_onednn() -> Iterator[None]:
    """Within, products in float32 are oneDNN's, where PyTorch otherwise takes a library that is slow on some processors.

    PyTorch has no switch but this: the factors may be rounded to bfloat16. It holds for all threads of the process, one of which at
    a time is let in; so it is only for where `multiplies_float32` says that nothing is rounded.
    """
    matmul = torch.backends.mkldnn.matmul
    with _precision:
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@lru_cache
def multiplies_float32() -> bool:
    """Whether `float32_by_onednn` is there, from PyTorch 2.9 on, and keeps all of float32 on this processor."""
    if not hasattr(torch.backends.mkldnn, "matmul") or not computes_bfloat16():
        return False
    a, b = torch.linspace(-1, 1, 2 * 256 * 64).view(2, 256, 64), torch.linspace(-1, 2, 2 * 64 * 256).view(2, 64, 256)
    with float32_by_onednn():
        made = a @ b
    exact = a.double() @ b.double()
    return bool((made - exact).norm() <= 1e-5 * exact.norm())
