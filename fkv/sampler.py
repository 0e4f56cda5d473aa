"""The few-step schedule: noise levels, x0 from flow, fresh noise between steps, and where the noise comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Noise levels of the denoising steps, from 1 downwards; the context pass runs at timestep 0.

    A latent at level sigma is (1 - sigma) * x0 + sigma * noise, its timestep 1000 * sigma.
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.sigmas, self.sigmas[1:]))
        if not self.sigmas or not falling or self.sigmas[0] > 1 or self.sigmas[-1] <= 0:
            raise ValueError(f"noise levels must fall from at most 1 and stay above 0, they are {self.sigmas}")

    @classmethod
    def warped(cls, steps: Sequence[int] = (1000, 750, 500, 250), shift: float = 5.0) -> Schedule:
        """Steps of a 1000-step table warped by `shift`: sigma = shift * s / (1 + (shift - 1) * s), s = step / 1000.

        The defaults are Self Forcing's: timesteps 1000, 937.5, 833.3, 625.
        """
        table = torch.linspace(1, 0, 1001)[:-1]
        table = shift * table / (1 + (shift - 1) * table)
        return cls(tuple(float(table[1000 - step]) for step in steps))

    @classmethod
    def even(cls, steps: int) -> Schedule:
        """`steps` evenly spaced levels 1, 1 - 1/steps, ..."""
        return cls(tuple(1 - i / steps for i in range(steps)))


def x0_of(noisy: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """The clean latents that a predicted flow (noise - x0) implies."""
    return noisy - sigma * flow


def renoise(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Clean latents back at noise level `sigma`."""
    return (1 - sigma) * x0 + sigma * noise


class Noise(Protocol):
    """Where a stream's noise comes from; every draw has the shape of the chunk's latents."""

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor: ...

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        """The noise added after denoising step `step`."""


@dataclass(frozen=True)
class SeededNoise:
    """Noise that depends on seed, chunk and step alone: the same for every policy, drawn on the CPU in float32."""

    seed: int = 0

    def _draw(self, chunk: int, draw: int, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + chunk) * 64 + draw)
        return torch.randn(tuple(shape), generator=generator)

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        return self._draw(chunk, 0, shape)

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self._draw(chunk, step + 1, shape)
