"""UniPC (arXiv 2302.04867): denoising along one path, without noise between steps, each by what the two before saw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class UniPC:
    """The solver of one chunk: order 2, on predicted clean latents, with B2(h), as Wan is sampled by it.

    Args:
        sigmas: Falling noise levels of the steps, below 1 and above 0.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = sigmas
        self.clean: list[Tensor] = []
        self.latents: list[Tensor] = []

    def step(self, x: Tensor, x0: Tensor) -> Tensor:
        """Correct the latents of a step by what was predicted from them, and go on to the next.

        Args:
            x: Latents of the step.
            x0: The clean latents that were predicted from them.

        Returns:
            Latents at the noise level of the next step.
        """
        at = len(self.clean)
        self.clean.append(x0)
        self.latents.append(self._moved(at - 1, self._change(at - 1)) if at else x)
        return self._moved(at, 0.5 * self._slope(at))

    def _gap(self, at: int) -> float:
        """How far it is from a step to the next, in half the logarithm of the signal-to-noise ratio."""
        here, there = (math.log((1 - sigma) / sigma) for sigma in self.sigmas[at : at + 2])
        return there - here

    def _slope(self, at: int) -> Tensor:
        """The change that a prediction goes on with to the next step, by that from the step before."""
        if at == 0:
            return torch.zeros_like(self.clean[0])
        return (self.clean[at] - self.clean[at - 1]) * (self._gap(at) / self._gap(at - 1))

    def _change(self, at: int) -> Tensor:
        """The weighted change of the prediction on the way to the next step, whose prediction is known."""
        change = self.clean[at + 1] - self.clean[at]
        if at == 0:
            return 0.5 * change
        gap = self._gap(at)
        decay = math.expm1(-gap)
        first = -1 / gap - 1 / decay  # the conditions on the weights of slope and change, of order 1 and 2
        second = 2 / gap**2 + (2 / gap - 1) / decay
        weight = (first - second) / (1 + self._gap(at - 1) / gap)
        return weight * self._slope(at) + (first - weight) * change

    def _moved(self, at: int, change: Tensor) -> Tensor:
        """The latents of a step, taken to the noise level of the next."""
        here, there = self.sigmas[at : at + 2]
        return there / here * self.latents[at] - (1 - there) * math.expm1(-self._gap(at)) * (self.clean[at] + change)
