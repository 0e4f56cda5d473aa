"""Train the tiny codec.

python -m fkv.training.codec --out runs/codec --steps 9000
python -m fkv.training.codec --world memory --from assets/tiny/codec --out runs/memory-codec --steps 3000

A VAE with fixed latent noise: squared error, weighted on the moving things so that small ones keep their colour, a
twentieth of the absolute error, and a mild pull of the latents to zero. The first two thirds train on crops, the rest
on full frames.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fkv.commands.model_options import add_device
from fkv.comparison import decibels
from fkv.models.codec import FRAMES_PER_LATENT, TinyCodec
from fkv.world import HEIGHT, WIDTH
from fkv.world.captions import sample_scene
from fkv.world.panorama import draw, labels, tell
from fkv.world.render import render
from fkv.world.shots import CAMERAS, sample_shot
from fkv.world.story import CHUNK, STORY_GENES
from fkv.world.tensors import random_genes, to_pixels

from .data import memory_mask, object_mask
from .precision import products_in

LATENT_NOISE = 0.1
PULL = 3e-4
PIXEL_RANGE = 2  # pixels lie in [-1, 1]


def batch(
    rng: random.Random, clips: int, frames: int, crop: tuple[int, int] | None, memory: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Render random clips.

    Args:
        rng: Source of randomness.
        clips: Number of clips.
        frames: Video frames per clip.
        crop: Height and width of a random crop, multiples of 8; None keeps whole frames.
        memory: Share of clips of the memory world.

    Returns:
        Pixels in [-1, 1], [clips, frames, 3, h, w], and the masks of the things, [clips, frames, 1, h, w].
    """
    videos: list[Tensor] = []
    masks: list[Tensor] = []
    for _ in range(clips):
        video, mask = memory_clip(rng, frames) if memory and rng.random() < memory else world_clip(rng, frames)
        if crop:
            top = 8 * rng.randint(0, (HEIGHT - crop[0]) // 8)
            left = 8 * rng.randint(0, (WIDTH - crop[1]) // 8)
            video = video[..., top : top + crop[0], left : left + crop[1]]
            mask = mask[..., top : top + crop[0], left : left + crop[1]]
        videos.append(video)
        masks.append(mask)
    return torch.stack(videos), torch.stack(masks)


def world_clip(rng: random.Random, frames: int) -> tuple[Tensor, Tensor]:
    """Render a random clip of today's world and its mask, [frames, 3 and 1, HEIGHT, WIDTH]."""
    scene = sample_scene(rng, two=0.5)
    genes = random_genes(rng)
    start = rng.randrange(96)
    indices = range(start, start + frames)
    video = to_pixels(render(scene, indices, genes))
    return video, object_mask(scene, indices, genes, video)


def memory_clip(rng: random.Random, frames: int) -> tuple[Tensor, Tensor]:
    """Render a random clip of the memory world and its mask, [frames, 3 and 1, HEIGHT, WIDTH].

    Half of the clips show a turn of the camera. The mask holds things, signs, lamps, windows and passers-by.
    """
    shot = sample_shot(rng)
    turned = replace(shot, camera=rng.choice(CAMERAS)) if rng.random() < 0.5 else shot
    at = rng.randrange(2, 8)
    shots = [shot] * (at - rng.randrange(2)) + [turned] * (1 + -(-frames // CHUNK))
    story = tell(shots, [random_genes(rng, STORY_GENES) for _ in shots])
    moments = [moment for chunk in story.chunks for moment in chunk.moments][-frames - rng.randrange(12) :][:frames]
    return to_pixels(draw(moments)), memory_mask(labels(moments))


def loss_of(codec: TinyCodec, video: Tensor, mask: Tensor, noise: float = LATENT_NOISE) -> tuple[Tensor, Tensor]:
    """Training loss and plain mean squared error of the reconstruction, both scalar tensors."""
    latents = codec.encode(video)
    decoded, _ = codec.decode(latents + noise * torch.randn_like(latents))
    error = (decoded.float() - video).square()
    weighted = (error * (1 + 4 * mask)).mean() + 0.05 * (decoded.float() - video).abs().mean()
    return weighted + PULL * latents.float().square().mean(), error.mean()


@torch.no_grad()
def normalise(codec: TinyCodec, rng: random.Random, memory: float = 0.0) -> TinyCodec:
    """The same codec with the mean and standard deviation of each latent channel in its configuration.

    Args:
        codec: It may have a mean and standard deviation already, of an encoder that has changed since.
        rng: Chooses the clips to measure.
        memory: Share of clips of the memory world.
    """
    video, _ = batch(rng, 96, FRAMES_PER_LATENT, None, memory)
    latents = codec.encode(video)
    mean = codec.mean + codec.std * latents.mean((0, 1, 3, 4))
    std = codec.std * latents.std((0, 1, 3, 4))
    config = dict(codec.config) | {"latents_mean": mean.tolist(), "latents_std": std.tolist()}
    normal = TinyCodec(**{k: v for k, v in config.items() if not k.startswith("_")})
    normal.load_state_dict(codec.state_dict())
    return normal


def main() -> None:
    """Train or resume as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--decoder-of",
        type=Path,
        help="a trained codec: train only its decoder further, so that its latents stay valid",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=LATENT_NOISE,
        help="noise on the latents in training; the decoder learns to tolerate errors",
    )
    parser.add_argument("--from", dest="origin", type=Path, help="a trained codec: train all of it further")
    parser.add_argument("--world", choices=("today", "memory"), default="today", help="memory: half of the clips are")
    parser.add_argument("--lr", type=float, default=1.2e-3, help="peak learning rate (default: 1.2e-3)")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--width", type=int, default=64)
    add_device(parser)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    origin = args.decoder_of or args.origin
    codec = TinyCodec.from_pretrained(origin).float() if origin else TinyCodec(width=args.width)
    memory = 0.5 if args.world == "memory" else 0.0
    codec.encoder.requires_grad_(not args.decoder_of)
    ema = deepcopy(codec).to(args.device)
    codec = codec.to(args.device)
    codec = codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in PyTorch's annotations
    trained = [parameter for parameter in codec.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0, betas=(0.9, 0.98))
    state_file = args.out / "state.pt"
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=args.device)
        codec.load_state_dict(state["codec"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    rng = random.Random(start)
    began = time.time()
    smooth: float | None = None
    for step in (bar := tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=30)):
        progress = step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * (1 - 0.97 * max(0, progress - 0.5) / 0.5)
        crops = progress < 0.67
        video, mask = batch(
            rng, args.clips if crops else max(1, args.clips // 3), 12, (64, 96) if crops else None, memory
        )
        with products_in(None, args.device):
            loss, error = loss_of(codec, video.to(args.device), mask.to(args.device), args.noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(ema.parameters(), codec.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        smooth = error.item() if smooth is None else 0.98 * smooth + 0.02 * error.item()
        if step % 100 == 0:
            bar.set_postfix(psnr=f"{decibels(smooth, PIXEL_RANGE):.2f}")
            with (args.out / "log.jsonl").open("a") as log:
                log.write(
                    json.dumps({"step": step, "psnr": decibels(smooth, PIXEL_RANGE), "seconds": time.time() - began})
                    + "\n"
                )
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            state = {
                "codec": codec.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(state, state_file)
            ema.to("cpu")
            latents_stay = bool(args.decoder_of)
            finished = ema if latents_stay else normalise(ema, random.Random(1), memory)
            finished.save_pretrained(args.out / "codec")
            ema.to(args.device)


if __name__ == "__main__":
    main()
