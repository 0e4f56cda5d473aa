"""Tell a model that was never distilled, which needs some 50 steps, from one that generates in few.

At the first noise level the input is noise and nothing else. A flow-matching model as it is first trained answers with
the mean of all videos of the prompt, whatever the noise; a model distilled to a few steps (DMD, consistency, and Self
Forcing's successors) answers with one video, and with another one for other noise.
"""

from __future__ import annotations

from dataclasses import replace

from fkv.models.base import VideoModel
from fkv.policies import Full
from fkv.sampler import Schedule
from fkv.stream import Stream

SHARE = 0.1
"""Below this share the noise hardly matters. 0 is the ideal mean, 1 stands for videos that have nothing in common."""


def noise_share(model: VideoModel, prompt: str) -> float:
    """Return how much of what a model answers to noise alone depends on that noise, from 0 to about 1.

    Args:
        model: The model. It takes one step of one chunk, twice, at half its height and width.
        prompt: What the video shows.

    Raises:
        ValueError: What it generates is not finite.
    """
    channels, height, width = model.latent
    half_height, half_width = (_half(size, model.transformer.patch) for size in (height, width))
    small = replace(model, schedule=Schedule((1.0,)), latent=(channels, half_height, half_width))
    first, second = (Stream(small, Full(), prompt, seed, decode=False).step().latents.float() for seed in (0, 1))
    return float((first - second).square().mean() / (first.square() + second.square()).mean())


def _half(size: int, patch: int) -> int:
    """Half a size in latent pixels, in whole patches."""
    return max(size // (2 * patch), 1) * patch


def doubt(model: VideoModel) -> str:
    """Return a sentence where a model looks as if it was never distilled, otherwise ""."""
    share = noise_share(model, model.examples[0])
    if share >= SHARE:
        return ""
    return (
        f"{model.name} looks as if it was never distilled to a few steps: other noise changes its first step by "
        f"{share:.0%} only. Streams of it will be blurred; take a checkpoint of Self Forcing's kind."
    )
