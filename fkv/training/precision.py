"""In which type training computes its products; weights, sums and optimizers stay in float32."""

from __future__ import annotations

import torch

from fkv.models.precision import COMPUTE, native_precision

PRECISIONS = ("bf16", "fp32")


def products_in(precision: str | None, device: str | torch.device) -> torch.autocast:
    """Return a context that computes products in a precision.

    Args:
        precision: One of `PRECISIONS`; None for what the device multiplies in hardware.
        device: Where the products are computed.
    """
    dtype = COMPUTE[precision or native_precision(device)]
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)
