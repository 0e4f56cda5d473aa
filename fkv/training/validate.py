"""Follow a model of the memory world while it trains: which items do its denoising steps show right?

python -m fkv.training.validate --model runs/memory/model --codec assets/tiny-memory/codec --clips 48

Every chunk of held-out clips sees the true, whole history. With `--steps 1`, the items of the first step show what the
noise decides, and those of all four what is left of it in a stream. Chunks count by what they must do: open a stream,
reveal a panel for the first time, return to one, or stay. Items are those that the witness reads in the true frames,
after the codec; it reads the end of each chunk, in which the camera rests.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from tqdm import tqdm

from fkv.models.codec import TinyCodec
from fkv.models.frames import to_frames
from fkv.models.words import WordEncoder
from fkv.world.captions import TIMES, words
from fkv.world.shots import CAMERAS
from fkv.world.story import CHUNK, LATE
from fkv.world.witness import read_panel, read_thing

from .clips import encoded, render_memory_clips
from .data import Clips
from .generator import Training, flow_loss
from .history import CHUNK_FRAMES, FULL
from .rollout import SIGMAS, Draft

HELD_OUT = 2**42  # seed of the clips; training counts from 0
CHUNKS = 8

Readings = dict[str, dict[str, list[bool]]]
"""Kind of chunk -> item -> whether it was shown right, chunk by chunk."""


def kinds_of(clips: Clips) -> list[str | None]:
    """What each chunk of a clip must do: "open", "reveal", "return" or "stay"; None where it is not judged."""
    cameras = [next(word for word in CAMERAS if word in words(prompt)) for prompt in clips.prompts[0]]
    judged = clips.judged[::CHUNK_FRAMES].flatten().tolist()
    kinds: list[str | None] = []
    for i, camera in enumerate(cameras):
        kind = "stay" if i and camera == cameras[i - 1] else "return" if camera in cameras[:i] else "reveal"
        kinds.append(None if not judged[i] else kind if i else "open")
    return kinds


def count(clips: Clips, shown: np.ndarray, true: np.ndarray, readings: Readings) -> None:
    """Add what the frames of a clip show, uint8 [T, H, W, 3], beside the true ones."""
    for i, kind in enumerate(kinds_of(clips)):
        if kind is None:
            continue
        time = next(word for word in words(clips.prompts[0][i]) if word in TIMES)
        end = slice((i + 1) * CHUNK - LATE, (i + 1) * CHUNK)
        seen = read_items(shown[end], time)
        for item, right in read_items(true[end], time).items():
            if right is not None:
                readings[kind][item].append(seen[item] == right)


def read_items(frames: np.ndarray, time: str) -> dict[str, Any]:
    """Read the panel and the thing in frames uint8 [T, H, W, 3] in which the camera rests; None where there is none."""
    panel = asdict(read_panel(frames, time))
    colour, shape = read_thing(frames, panel["colour"])
    return panel | {"thing colour": colour, "thing shape": shape}


@torch.no_grad()
def validate(
    model: Any, text_encoder: Any, codec: TinyCodec, clips: int, steps: int = len(SIGMAS)
) -> tuple[Readings, dict[str, float]]:
    """Count the items that a model shows right.

    Args:
        model: The transformer.
        text_encoder: Its text encoder.
        codec: Its codec.
        clips: How many held-out clips of `CHUNKS` chunks.
        steps: After how many of the four denoising steps.

    Returns:
        The readings, and by kind of chunk the mean squared error of x0 in its last latent frame.
    """
    training = Training(model.eval(), text_encoder.eval(), lr=0.0)
    training.prepare(CHUNKS)
    rng = random.Random(HELD_OUT)
    torch.manual_seed(0)
    readings: Readings = defaultdict(lambda: defaultdict(list))
    errors: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(clips), unit="clip"):
        drawn = encoded(codec, render_memory_clips(rng, codec.config["latent_channels"], 1, CHUNKS, FULL, 1.0), "cpu")
        draft = Draft.of(drawn)
        for _ in range(steps):
            x0 = flow_loss(model, text_encoder, draft, rng, 1)[2]
            draft.advance(x0)
        shown, true = (to_frames(codec.decode(latents)[0][0]) for latents in (x0, drawn.latents))
        count(drawn, shown, true, readings)
        for i, kind in enumerate(kinds_of(drawn)):
            if kind:
                last = CHUNK_FRAMES * (i + 1) - 1
                errors[kind].append(float((x0[:, last] - drawn.latents[:, last]).square().mean()))
    return readings, {kind: float(np.mean(found)) for kind, found in errors.items()}


def main() -> None:
    """Print a line per kind of chunk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of transformer/ and text_encoder/")
    parser.add_argument("--codec", type=Path, required=True, help="folder of the codec")
    parser.add_argument("--clips", type=int, default=48, help="held-out clips of 8 chunks (default: 48)")
    parser.add_argument(
        "--steps", type=int, choices=range(1, len(SIGMAS) + 1), default=len(SIGMAS), help="of four (default: all)"
    )
    args = parser.parse_args()
    model = WanTransformer3DModel.from_pretrained(args.model / "transformer", torch_dtype=torch.float32)
    text_encoder = WordEncoder.from_pretrained(args.model / "text_encoder").float()
    readings, errors = validate(
        model, text_encoder, TinyCodec.from_pretrained(args.codec).float(), args.clips, args.steps
    )
    for kind, items in readings.items():
        told = ", ".join(f"{item} {sum(right)}/{len(right)}" for item, right in items.items())
        print(f"{kind}: error {errors[kind]:.3f}, {told}")


if __name__ == "__main__":
    main()
