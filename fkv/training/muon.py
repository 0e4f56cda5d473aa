"""Muon, an optimizer for matrices: momentum whose singular values are all made about one.

Keller Jordan and others, https://kellerjordan.github.io/posts/muon; the coefficients of the Newton-Schulz iteration and
Nesterov's form are theirs. The scale that lets Muon share AdamW's learning rate is that of Liu and others, Muon is
Scalable for LLM Training, arXiv:2502.16982. `torch.optim.Muon` (from PyTorch 2.9) takes the same steps, matrix by
matrix and always in bfloat16, which many CPUs only emulate. Here matrices of one shape are one batch, in the type that
the device multiplies in hardware.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fkv.models.precision import COMPUTE, native_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, decoupled weight decay and AdamW's learning rates.

    Args:
        params: Matrices, or groups of them as for every optimizer.
        lr: Learning rate; updates have the root mean square that AdamW's typically have, 0.2 of it.
        weight_decay: Share of the learning rate by which weights shrink in a step.
        momentum: Of the gradient's moving average.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. Matrices without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same_shape[matrix.shape].append((matrix, matrix.grad))
            for shape, matrices in same_shape.items():
                updates = orthogonal(torch.stack([self._momentum(*each, group["momentum"]) for each in matrices]))
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for (matrix, _), update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
        return loss

    def _momentum(self, matrix: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Update the moving average of a matrix's gradient, and return it one step ahead (Nesterov)."""
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return torch.lerp(gradient, average, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices near one: those that are not tiny end between about 0.7 and 1.2.

    Args:
        matrices: Float32 [B, rows, columns].

    Returns:
        The same shape, in the type that the device multiplies in hardware.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(COMPUTE[native_precision(matrices.device)])
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
