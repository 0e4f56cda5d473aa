"""The few-step schedule: noise levels, clean latents from flow, and the noise that is added between steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Solver = Literal["renoise", "unipc"]


@dataclass(frozen=True)
class Schedule:
    """Noise levels of the denoising steps. The context pass runs at timestep 0.

    A latent at level sigma is (1 - sigma) * x0 + sigma * noise, and its timestep is 1000 * sigma.

    Args:
        sigmas: Falling levels in (0, 1], one per step.
        solver: How a chunk gets from one level to the next: `renoise` adds noise to the predicted clean latents,
            `unipc` follows one path (`fkv.unipc`).

    Raises:
        ValueError: The levels do not fall or leave the range.
    """

    sigmas: tuple[float, ...]
    solver: Solver = "renoise"

    def __post_init__(self) -> None:
        falling = all(high > low for high, low in pairwise(self.sigmas))
        if not self.sigmas or not falling or not 0 < self.sigmas[-1] <= self.sigmas[0] <= 1:
            raise ValueError(f"noise levels must fall from at most 1 and stay above 0, they are {self.sigmas}")

    @classmethod
    def warped(cls, steps: Sequence[int] = (1000, 750, 500, 250), shift: float = 5.0) -> Schedule:
        """Take steps of a 1000-step table that is warped towards high noise.

        A step s becomes shift * t / (1 + (shift - 1) * t) with t = s / 1000. The defaults are those of Self Forcing
        (arXiv 2506.08009): timesteps 1000, 937.5, 833.3, 625.

        Args:
            steps: Falling steps in [1, 1000].
            shift: How much the table is warped; 1 leaves it linear.
        """
        table = torch.linspace(1, 0, 1001)[:-1]
        table = shift * table / (1 + (shift - 1) * table)
        return cls(tuple(float(table[1000 - step]) for step in steps))

    @classmethod
    def unipc(cls, steps: int = 4, shift: float = 5.0) -> Schedule:
        """Spread steps over Wan's table, warped as in `warped`, for UniPC: with four, timesteps 999, 937, 833, 624."""
        table = [0.999 * (1 - i / steps) for i in range(steps)]
        return cls(tuple(shift * level / (1 + (shift - 1) * level) for level in table), "unipc")

    @classmethod
    def at(cls, timesteps: Sequence[float]) -> Schedule:
        """Take timesteps as the transformer is given them, falling from at most 1000 and above 0."""
        return cls(tuple(step / 1000 for step in timesteps))

    @classmethod
    def even(cls, steps: int) -> Schedule:
        """Space the levels of `steps` steps evenly: 1, 1 - 1/steps, ..."""
        return cls(tuple(1 - i / steps for i in range(steps)))

    def with_steps(self, count: int) -> Schedule:
        """Take some of the levels, evenly spread from the first: of four, two steps take the first and the third.

        Args:
            count: How many.

        Raises:
            ValueError: There are not so many.
        """
        most = len(self.sigmas)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            raise ValueError(f"the number of steps must be a whole number from 1 to {most}, not {count!r}")
        return Schedule(tuple(self.sigmas[i * most // count] for i in range(count)), self.solver)

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The steps' timesteps as the transformer is given them; UniPC's are whole numbers."""
        return tuple(int(1000 * sigma) if self.solver == "unipc" else 1000 * sigma for sigma in self.sigmas)


def read_timesteps(text: str) -> tuple[float, ...]:
    """Read the timesteps of denoising steps, as a model is given them.

    Args:
        text: T,T,...; a 0 at the end, which some configurations have for the context pass, is left out.

    Raises:
        ValueError: They are no numbers, or do not fall from at most 1000 and stay above 0.
    """
    try:
        steps = tuple(float(step) for step in text.split(","))
        steps = steps[:-1] if steps[-1] == 0 else steps
        Schedule.at(steps)
    except ValueError:
        raise ValueError(
            f"timesteps are falling numbers from at most 1000 and above 0, as in 1000,757,522, not {text!r:.60}"
        ) from None
    return steps


def x0_of(noisy: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """The clean latents that follow from a predicted flow.

    Args:
        noisy: Latents at level `sigma`, [batch, frames, channels, height, width].
        flow: Predicted noise - x0, of the same shape.
        sigma: The noise level.
    """
    return noisy - sigma * flow


def renoise(x0: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Bring clean latents back to a noise level.

    Args:
        x0: Clean latents, [batch, frames, channels, height, width].
        noise: Of the same shape.
        sigma: The noise level.
    """
    return (1 - sigma) * x0 + sigma * noise


CODE = 1_000_000  # the first branch of `BranchNoise` that is a noise code


class Noise(Protocol):
    """The source of a stream's noise; `shape` is [batch, frames, channels, height, width] of a chunk."""

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        """The noise that a chunk starts from."""

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        """The noise that is added after a denoising step."""


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


def read_path(text: str) -> tuple[int, ...]:
    """Read the branches of `BranchNoise`, as in 0,3,1; none of an empty text. Raises ValueError for any other text."""
    parts = text.split(",") if text.strip() else []
    if not all(part.strip().isdecimal() and len(part.strip()) < 10 for part in parts):
        raise ValueError(f"a path has a whole number for each chunk, as in 0,3,1, not {text!r:.60}")
    return tuple(map(int, parts))


@dataclass(frozen=True)
class BranchNoise:
    """The noise of a stream that is one of several futures, which differ from some chunk on.

    Branch 0 draws what `SeededNoise` draws, so the plain stream is one of the futures. Branches from `CODE` on are
    noise codes, which draw the same at every chunk and for every seed, so that what follows from one can be learnt.

    Args:
        seed: Of the plain stream.
        path: The branch at each chunk, from chunk 0; branch 0 at all later ones.
    """

    seed: int = 0
    path: tuple[int, ...] = ()

    def _draw(self, chunk: int, draw: int, shape: Sequence[int]) -> Tensor:
        branch = self.path[chunk] if chunk < len(self.path) else 0
        if branch == 0:
            return SeededNoise(self.seed)._draw(chunk, draw, shape)
        entropy = (branch, draw) if branch >= CODE else (self.seed, chunk, branch, draw)
        (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(state)))

    def initial(self, chunk: int, shape: Sequence[int]) -> Tensor:
        return self._draw(chunk, 0, shape)

    def between(self, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
        return self._draw(chunk, step + 1, shape)
