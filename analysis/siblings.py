"""Do streams of one past part when their noise does? Without that, there is nothing to choose between futures."""

from __future__ import annotations

from collections.abc import Iterator

from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.policies import Full
from fkv.records import Record
from fkv.sampler import SeededNoise
from fkv.stream import Stream, video_of

from .held_out import held_out_text
from .measures import bounded_psnr

BRANCH = 3  # the first chunk with noise of its own, counted from 1
CHUNKS = 6  # that each sibling generates
OTHER = 2**20  # from a stream's seed to that of its sibling


def siblings(model: VideoModel, prompts: int, seeds: int) -> Iterator[Record]:
    """Branch streams under the full cache and compare what both branches generate.

    Args:
        model: The model.
        prompts: Held-out prompts, of scenes in which things move.
        seeds: Seeds per prompt, counted from 0.

    Yields:
        One record per prompt and seed: model, checkpoint, precision, prompt, seed and psnr, `bounded_psnr` over all
        chunks from `BRANCH` on.
    """
    for prompt in range(prompts):
        for seed in range(seeds):
            stream = Stream(model, Full(), held_out_text(prompt), noise=SeededNoise(seed))
            for _ in range(BRANCH - 1):
                stream.step()
            branches = stream, stream.fork(SeededNoise(seed + OTHER))
            videos = [video_of([branch.step() for _ in range(CHUNKS)]) for branch in branches]
            names = dict(zip(("model", "checkpoint", "precision"), identity_of(model), strict=True))
            yield names | {"prompt": prompt, "seed": seed, "psnr": bounded_psnr(*videos)}
