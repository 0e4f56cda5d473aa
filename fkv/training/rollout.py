"""Training on the generator's own pictures, so that few steps suffice and errors do not grow over a stream.

A `Draft` is a batch of clips on its way through the sampler: every visit takes it one denoising step further from where
the last one left it, and the loss asks for the true picture all the same. After the last step the finished chunks
become the history that the next round attends to. Drafts wait in a pool between fresh clips and are visited in random
order, so a rollout costs no forward pass of its own.
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
    """history : what attention sees of earlier chunks, at first the truth. guess : x0 after the last step. Both [B, F, Z, h, w]."""

    clips: Clips
    history: Tensor
    guess: Tensor | None = None
    step: int = 0
    rounds: int = 0

    @property
    def sigma(self) -> float:
        return SIGMAS[self.step]

    def noisy(self) -> Tensor:
        """What the sampler would hand to the next step."""
        if self.guess is None:
            return self.clips.noise()
        return renoise(self.guess, torch.randn_like(self.guess), self.sigma)

    def advance(self, x0: Tensor) -> None:
        """Take over what the step made of it. A chunk whose past is out of sight keeps the truth."""
        self.guess, self.step = torch.where(self.clips.judged, x0, self.clips.latents), self.step + 1
        if self.step == len(SIGMAS):
            self.history, self.guess, self.step, self.rounds = self.guess, None, 0, self.rounds + 1


class Pool:
    """Half of the draws are fresh clips, half are drafts under way, of which there are `size`."""

    def __init__(self, size: int, fresh: Callable[[], Clips], rng: random.Random) -> None:
        self.size, self.fresh, self.rng = size, fresh, rng
        self.drafts: list[Draft] = []

    def draw(self) -> Draft:
        if len(self.drafts) < self.size or self.rng.random() < 0.5:
            clips = self.fresh()
            return Draft(clips, clips.latents)
        return self.drafts.pop(self.rng.randrange(len(self.drafts)))

    def give_back(self, draft: Draft) -> None:
        """Keep a draft until its rounds are over, if there is room."""
        if draft.rounds < ROUNDS and len(self.drafts) < self.size:
            self.drafts.append(draft)
