"""Train the tiny generator: python -m fkv.training.generator --codec runs/codec/codec --out runs/generator --minutes 100

Teacher forcing with the contexts that streaming will meet (`attention.draw_context`): history cut down as the cache
policies cut it, a first chunk that lies far in the past, slightly noisy context, prompts that change at a chunk border.

Few steps are enough because noise and data are coupled: what a caption leaves open (`world.render`'s genes: phases,
places, the camera's start) is read from the first pixel of the first chunk's noise, which every token of that chunk is
shown (`models.coordinates`). So at sigma = 1 the right answer is one picture and not the mean of many, and the noise is
still exactly standard normal.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from kernels import rope_table
from kernels.rope import axis_dims

from ..models.codec import FRAMES_PER_LATENT, TinyCodec
from ..models.coordinates import input_channels, with_coordinates
from ..models.words import WordEncoder
from ..world.captions import COLOURS, MOTIONS, SHAPES, Scene, caption, sample_scene
from ..world.render import GENES, render
from .attention import ChunkTextAttention, TeacherForcedAttention, draw_context
from .data import object_mask, to_pixels

SIGMAS = (1.0, 0.75, 0.5, 0.25)
CHUNK_FRAMES = 3
FARTHEST_CHUNK = 340


@dataclass
class Clips:
    """A training batch: latents [B, F, Z, h, w], object weight [B, F, 1, h, w], prompts [B][chunk], first-chunk noise
    corner [B, Z], chunk indices of the clip and how many of its first chunks carry no loss."""

    latents: Tensor
    weight: Tensor
    prompts: list[list[str]]
    corner: Tensor
    chunks: list[int]
    gap: int | None


def change(scene: Scene, rng: random.Random) -> Scene:
    """The scene after a prompt change: another place and time, or another first thing, or both."""
    other = sample_scene(rng, two=0.0)
    kind = rng.randrange(3)
    thing = rng.choice(
        (
            other.things[0],
            replace(scene.things[0], colour=rng.choice(COLOURS)),
            replace(scene.things[0], shape=rng.choice(SHAPES)),
            replace(scene.things[0], motion=rng.choice(MOTIONS)),
        )
    )
    things = scene.things if kind == 0 else (thing, *scene.things[1:])
    return Scene(scene.place if kind == 1 else other.place, scene.time if kind == 1 else other.time, things)


@torch.no_grad()
def draw_clips(rng: random.Random, codec: TinyCodec, count: int, chunks: int, device: str) -> Clips:
    """Render and encode `count` clips of `chunks` chunks that share their chunk indices."""
    far = rng.random() < 0.4
    start = rng.randrange(1, FARTHEST_CHUNK) if far else 1
    indices = [0, *range(start, start + chunks - 1)]
    span = CHUNK_FRAMES * FRAMES_PER_LATENT
    videos, weights, prompts, corners = [], [], [], []
    for _ in range(count):
        corner = torch.randn(codec.config.latent_channels)
        genes = torch.special.ndtr(corner)[:GENES].tolist()
        scene = sample_scene(rng, two=0.15)
        switch = rng.randrange(1, chunks) if rng.random() < 0.3 else chunks
        scenes = [scene] * switch + [change(scene, rng)] * (chunks - switch)
        texts = [caption(scenes[0], rng), caption(scenes[-1], rng)]
        prompts.append([texts[0]] * switch + [texts[1]] * (chunks - switch))
        video, mask = [], []
        for index, at in zip(indices, scenes):
            frames = range(index * span, (index + 1) * span)
            video.append(to_pixels(render(at, frames, genes)))
            mask.append(object_mask(at, frames, genes, video[-1]))
        videos.append(torch.cat(video)), weights.append(torch.cat(mask)), corners.append(corner)
    video, mask = torch.stack(videos).to(device), torch.stack(weights).to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        latents = codec.encode(video).float()
    mask = mask.unflatten(1, (-1, FRAMES_PER_LATENT)).amax(2)
    mask = F.max_pool2d(mask.flatten(0, 1), 8).unflatten(0, mask.shape[:2])
    return Clips(latents, 1 + 3 * mask, prompts, torch.stack(corners).to(device), indices, 1 if far and start > 1 else None)


def flow_loss(
    transformer: WanTransformer3DModel, words: WordEncoder, clips: Clips, rng: random.Random, noisy: int
) -> tuple[Tensor, dict[float, float]]:
    """Weighted flow-matching loss of `noisy` copies at random steps, and the plain error of x0 per sigma."""
    x0, batch = clips.latents, len(clips.latents)
    tokens = (x0.shape[-2] // 2) * (x0.shape[-1] // 2)
    chunks = len(clips.chunks)
    positions = [CHUNK_FRAMES * c + i for c in clips.chunks for i in range(CHUNK_FRAMES)]
    table = rope_table(positions, x0.shape[-2] // 2, x0.shape[-1] // 2, transformer.config.attention_head_dim).to(x0.device)
    context = draw_context(rng, table, 1 + noisy, chunks, tokens, len(transformer.blocks))
    for block in transformer.blocks:
        block.attn1.processor.context = context
        block.attn2.processor.chunks = chunks
    sigmas = rng.sample(SIGMAS, noisy) if rng.random() < 0.85 else [rng.uniform(0.1, 1.0) for _ in range(noisy)]
    if noisy > 1 and rng.random() < 0.5:
        sigmas[0] = 1.0
    slight = 0.15 * rng.random() if rng.random() < 0.5 else 0.0
    inputs, targets = [(1 - slight) * x0 + slight * torch.randn_like(x0)], []
    for sigma in sigmas:
        noise = torch.randn_like(x0)
        if sigma == 1.0:
            noise[:, 0, :, 0, 0] = clips.corner
        inputs.append((1 - sigma) * x0 + sigma * noise)
        targets.append(noise - x0)
    hidden = with_coordinates(torch.cat(inputs).transpose(1, 2), CHUNK_FRAMES)
    time_steps = torch.tensor([0.0, *(1000 * s for s in sigmas)], device=x0.device).repeat_interleave(batch)
    text = words([prompt for clip in clips.prompts for prompt in clip])
    with torch.autocast(x0.device.type, dtype=torch.bfloat16):
        flow = transformer(hidden, time_steps, text, return_dict=False)[0]
    flow = flow[batch:].transpose(1, 2).float().unflatten(0, (noisy, batch))
    weight = clips.weight.clone()
    if clips.gap is not None:
        weight[:, CHUNK_FRAMES * clips.gap : CHUNK_FRAMES * (clips.gap + 1)] = 0
    total, errors = x0.new_zeros(()), {}
    for sigma, predicted, target in zip(sigmas, flow, targets):
        squared = (predicted - target).square()
        total = total + sigma * (squared * weight).mean() / weight.mean()
        errors[round(sigma, 2)] = float((sigma**2 * squared.detach() * (weight > 0)).mean() / (weight > 0).float().mean())
    return total / noisy, errors


def optimizers(transformer: WanTransformer3DModel, words: WordEncoder, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else; `pace` multiplies the learning rate of a group.

    Gains and biases of self-attention's queries and keys set how sharply a head can look; they learn faster than the rest.
    """
    named = [*transformer.named_parameters(), *words.named_parameters()]
    matrices = [p for n, p in named if p.ndim == 2 and n.startswith("blocks.")]
    sharp = [p for n, p in named if ".attn1." in n and ("norm_" in n or n.endswith(("to_q.bias", "to_k.bias")))]
    chosen = {id(p) for p in (*matrices, *sharp)}
    others = [p for _, p in named if id(p) not in chosen]
    groups = [{"params": others, "pace": 1.0}, {"params": sharp, "pace": 8.0}]
    return [
        torch.optim.Muon([{"params": matrices, "pace": 1.0}], lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


@torch.no_grad()
def look_around(attn: torch.nn.Module) -> None:
    """Start every other head with a view of its own place in all frames, and all heads with some sharpness.

    A constant in the fastest-turning row and column dimensions of q and k makes their product fall with distance under
    RoPE. Without this start, heads take thousands of steps to find the past at all.
    """
    size = attn.inner_dim // attn.heads
    time, rows, _ = axis_dims(size)
    for norm in (attn.norm_q, attn.norm_k):
        torch.nn.init.constant_(norm.weight, 1.6)
    for linear in (attn.to_q, attn.to_k):
        for head in range(1, attn.heads, 2):
            for axis in (time, time + rows):
                linear.bias[head * size + axis] += 3.0
                linear.bias[head * size + axis + 2] += 2.0


def build(width: int, layers: int, head_dim: int, channels: int) -> tuple[WanTransformer3DModel, WordEncoder]:
    """A fresh generator and its text encoder."""
    words = WordEncoder()
    transformer = WanTransformer3DModel(
        num_attention_heads=width // head_dim, attention_head_dim=head_dim, in_channels=input_channels(channels), out_channels=channels,
        text_dim=words.config.dim, freq_dim=64, ffn_dim=4 * width, num_layers=layers,
    )  # fmt: skip
    torch.nn.init.zeros_(transformer.proj_out.weight)
    for block in transformer.blocks:
        look_around(block.attn1)
    return transformer, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", dest="origin", type=Path, help="start from these weights (a folder with transformer/ and text_encoder/)")
    parser.add_argument("--minutes", type=float, default=100.0, help="training time of this run; the learning rate falls towards its end")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--noisy", type=int, default=2)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    codec = TinyCodec.from_pretrained(args.codec).to(args.device).requires_grad_(False)
    if args.origin:
        transformer = WanTransformer3DModel.from_pretrained(args.origin / "transformer")
        words = WordEncoder.from_pretrained(args.origin / "text_encoder")
    else:
        transformer, words = build(args.width, args.layers, 32, codec.config.latent_channels)
    transformer, words = transformer.to(args.device).train(), words.to(args.device).train()
    for layer, block in enumerate(transformer.blocks):
        block.attn1.set_processor(TeacherForcedAttention(layer))
        block.attn2.set_processor(ChunkTextAttention(args.chunks))
    ema = deepcopy((transformer, words))
    steps = optimizers(transformer, words, args.lr)
    state_file, step, spent = args.out / "state.pt", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=args.device)
        for module, saved in zip((transformer, words, *ema), state["modules"]):
            module.load_state_dict(saved)
        for optimizer, saved in zip(steps, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["minutes"]
    rng = random.Random(step + 1)
    torch.manual_seed(step + 1)
    began, smooth = time.time(), {}
    parameters = [p for module in (transformer, words) for p in module.parameters()]
    with tqdm(
        total=args.minutes, initial=spent, unit="min", mininterval=30, bar_format="{l_bar}{bar}| {n:.1f}/{total:.0f} min {postfix}"
    ) as bar:
        while (minutes := spent + (time.time() - began) / 60) < args.minutes:
            rate = args.lr * min(1, (step + 1) / 100) * max(0.03, min(1, (1 - minutes / args.minutes) / 0.5))
            for optimizer in steps:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["pace"]
            clips = draw_clips(rng, codec, args.clips, args.chunks, args.device)
            loss, errors = flow_loss(transformer, words, clips, rng, args.noisy)
            for optimizer in steps:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in steps:
                optimizer.step()
            step += 1
            decay = min(0.998, step / (step + 10))
            with torch.no_grad():
                for slow_module, fast_module in zip(ema, (transformer, words)):
                    for slow, fast in zip(slow_module.parameters(), fast_module.parameters()):
                        slow.lerp_(fast, 1 - decay)
            for sigma, error in [("loss", loss.item()), *errors.items()]:
                if sigma == "loss" or sigma in SIGMAS:
                    smooth[sigma] = 0.98 * smooth.get(sigma, error) + 0.02 * error
            if step % 20 == 0:
                bar.n = minutes
                bar.set_postfix_str(f"step {step} " + " ".join(f"{k}:{v:.4f}" for k, v in smooth.items()))
                with (args.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": step, "minutes": minutes} | {str(k): v for k, v in smooth.items()}) + "\n")
            if step % 200 == 0:
                save(args.out, transformer, words, ema, steps, step, minutes)
    save(args.out, transformer, words, ema, steps, step, args.minutes)


def save(out: Path, transformer, words, ema, steps, step: int, minutes: float) -> None:
    """Write the resumable state and the averaged weights in diffusers' layout."""
    state = {
        "modules": [m.state_dict() for m in (transformer, words, *ema)],
        "optimizers": [o.state_dict() for o in steps], "step": step, "minutes": minutes,
    }  # fmt: skip
    torch.save(state, out / "state.part")
    (out / "state.part").replace(out / "state.pt")
    ema[0].save_pretrained(out / "model" / "transformer")
    ema[1].save_pretrained(out / "model" / "text_encoder")


if __name__ == "__main__":
    main()
