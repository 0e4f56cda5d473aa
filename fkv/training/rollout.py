"""Training on the generator's own output, so that few steps suffice and errors do not grow over a stream.

A `Draft` is a batch of clips on its way through the sampler: every visit takes it one denoising step further, and the
loss compares each step with the true frames. After the last step, the finished chunks become the history that the next
round attends to. Drafts wait in a pool between fresh clips and are visited in random order, so a rollout needs no extra
forward pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkv.sampler import renoise

from .data import Clips

SIGMAS = (1.0, 0.75, 0.5, 0.25)
ROUNDS = 3


@dataclass
class Draft:
    """A batch of clips part of the way through the sampler.

    Attributes:
        clips: The clips and their true latents.
        history: Latents that later chunks attend to, at first the true ones, [B, F, Z, h, w].
        guess: x0 after the last step, of the same shape; None before the first one.
        step: Index of the next denoising step.
        rounds: How many times all steps are done.
        sigmas: Noise levels of the steps.
    """

    clips: Clips
    history: Tensor
    guess: Tensor | None = None
    step: int = 0
    rounds: int = 0
    sigmas: tuple[float, ...] = SIGMAS

    @property
    def sigma(self) -> float:
        """Noise level of the next step."""
        return self.sigmas[self.step]

    def noisy(self) -> Tensor:
        """The input of the next step."""
        if self.guess is None:
            return self.clips.noise()
        return renoise(self.guess, torch.randn_like(self.guess), self.sigma)

    def advance(self, x0: Tensor) -> None:
        """Continue from the result of a step. Frames that are not judged keep the true latents."""
        guess = torch.where(self.clips.judged, x0, self.clips.latents)
        self.step += 1
        if self.step < len(self.sigmas):
            self.guess = guess
            return
        self.history = guess
        self.guess = None
        self.step = 0
        self.rounds += 1


class Pool:
    """Drafts under way. Half of the draws are fresh clips, half are drafts.

    Args:
        size: Number of drafts under way.
        fresh: Draws new clips.
        rng: Source of randomness.
        schedule: Draws the noise levels of a new draft.
    """

    def __init__(
        self,
        size: int,
        fresh: Callable[[], Clips],
        rng: random.Random,
        schedule: Callable[[], tuple[float, ...]] = lambda: SIGMAS,
    ) -> None:
        self.schedule = schedule
        self.size = size
        self.fresh = fresh
        self.rng = rng
        self.drafts: list[Draft] = []

    def draw(self) -> Draft:
        """Take a draft out of the pool, or start one."""
        if len(self.drafts) < self.size or self.rng.random() < 0.5:
            clips = self.fresh()
            return Draft(clips, clips.latents, sigmas=self.schedule())
        return self.drafts.pop(self.rng.randrange(len(self.drafts)))

    def give_back(self, draft: Draft) -> None:
        """Put a draft back unless its rounds are done or the pool is full."""
        if draft.rounds < ROUNDS and len(self.drafts) < self.size:
            self.drafts.append(draft)
