"""What oneDNN, which computes PyTorch's products on a CPU, can do beyond PyTorch's own calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

_precision = threading.Lock()


@lru_cache
def onednn_computes(dtype: torch.dtype) -> bool:
    """Whether products of this type are its own on this machine."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@lru_cache
def has_wide_results() -> bool:
    """Whether `wide_results` is there: from PyTorch 2.9 on, where bfloat16 is multiplied at all."""
    return hasattr(torch.backends.mkldnn, "matmul") and onednn_computes(torch.bfloat16)


@contextmanager
def wide_results() -> Iterator[None]:
    """Within, float32 products round their factors to bfloat16 and nothing else: what comes from bfloat16 is multiplied exactly, at
    the speed of bfloat16. It holds for all threads of the process, one of which at a time is let in."""
    matmul = torch.backends.mkldnn.matmul
    with _precision:
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before
