"""Training on the generator's own output, so that few steps suffice and errors do not grow over a stream.

A `Draft` is a batch of clips on its way through the sampler: every visit takes it one denoising step further, and the
loss compares each step with the true frames. After the last step, the finished chunks become the history that the next
round attends to. In the memory world that history keeps small errors alone: a blue ball in it, where the true one is
red, would teach the generator to disregard what it remembers. Drafts wait in a pool between fresh clips and are visited
in random order, so a rollout needs no extra forward pass.

Two steps learn from four: a finished round of four steps is the target of a draft of two steps from the same noise and
history, so the teacher needs no forward pass of its own either.
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
FEW_SIGMAS = (1.0, 0.5)
ROUNDS = 6
DRIFT = 0.3  # largest error of a latent's value in a history of the memory world; a value's deviation is about 1


@dataclass
class Draft:
    """A batch of clips part of the way through the sampler.

    Attributes:
        clips: The clips and their true latents.
        history: Latents that later chunks attend to, at first the true ones, [B, F, Z, h, w].
        start: Noise of the first step, of the same shape.
        guess: x0 after the last step, of the same shape; None before the first one.
        step: Index of the next denoising step.
        rounds: How many times all steps are done.
        target: What the steps should lead to: the true latents, or for two steps what four made of the same noise.
        sigmas: Noise levels of the steps.
    """

    clips: Clips
    history: Tensor
    start: Tensor
    target: Tensor
    guess: Tensor | None = None
    step: int = 0
    rounds: int = 0
    sigmas: tuple[float, ...] = SIGMAS

    @classmethod
    def of(cls, clips: Clips) -> Draft:
        """Start a draft of new clips."""
        return cls(clips, clips.latents, clips.noise(), clips.latents)

    @property
    def sigma(self) -> float:
        """Noise level of the next step."""
        return self.sigmas[self.step]

    def noisy(self) -> Tensor:
        """The input of the next step."""
        if self.guess is None:
            return self.start
        return renoise(self.guess, torch.randn_like(self.guess), self.sigma)

    def advance(self, x0: Tensor) -> Draft | None:
        """Continue from the result of a step. Frames that are not judged keep the true latents.

        Returns:
            After the last step towards the true latents, a draft that shall come as far in two steps.
        """
        guess = torch.where(self.clips.judged, x0, self.clips.latents)
        self.step += 1
        if self.step < len(self.sigmas):
            self.guess = guess
            return None
        pupil = Draft(self.clips, self.history, self.start, guess, rounds=ROUNDS - 1, sigmas=FEW_SIGMAS)
        taught = self.sigmas == FEW_SIGMAS
        errors = guess - self.clips.latents
        self.history = guess if self.clips.history is None else self.clips.latents + errors.clamp(-DRIFT, DRIFT)
        self.start = self.clips.noise()
        self.guess = None
        self.step = 0
        self.rounds += 1
        return None if taught else pupil


class Pool:
    """Drafts under way. Half of the draws are fresh clips, half are drafts.

    Args:
        size: Number of drafts under way.
        fresh: Draws new clips.
        rng: Source of randomness.
        few_steps: Share of finished drafts whose result is taught to two steps.
    """

    def __init__(self, size: int, fresh: Callable[[], Clips], rng: random.Random, few_steps: float = 0.0) -> None:
        self.size = size
        self.fresh = fresh
        self.rng = rng
        self.few_steps = few_steps
        self.drafts: list[Draft] = []

    def draw(self) -> Draft:
        """Take a draft out of the pool, or start one."""
        if len(self.drafts) < self.size or self.rng.random() < 0.5:
            return Draft.of(self.fresh())
        return self.drafts.pop(self.rng.randrange(len(self.drafts)))

    def give_back(self, draft: Draft, pupil: Draft | None) -> None:
        """Put a draft back unless its rounds are done or the pool is full, after the draft that learns from it."""
        waiting = [pupil] if pupil and self.rng.random() < self.few_steps else []
        waiting += [draft] if draft.rounds < ROUNDS else []
        self.drafts += waiting[: self.size - len(self.drafts)]
