"""Train the tiny generator: python -m fkv.training.generator --codec runs/codec/codec --out runs/generator --minutes 100

All chunks of a clip at once, with the contexts that streaming will meet (`attention.draw_context`): history cut down as the
cache policies cut it, a first chunk that lies far in the past, slightly noisy context, prompts that change at a chunk
border, and the generator's own earlier steps and chunks in place of the true ones (`rollout`).

Few steps are enough because noise and data are coupled: what a caption leaves open (`world.render`'s genes: places,
sizes, the camera's start) is read from the first pixel of the first chunk's noise (`data.genes_of`), which every token of
that chunk is shown (`coordinates`). So at sigma = 1 the right answer is one picture and not the mean of many, and the noise is
still exactly standard normal.
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
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from fkv.commands.model_options import add_device
from fkv.kernels import rope_freqs_cis
from fkv.kernels.rope import axis_dims
from fkv.models.codec import FRAMES_PER_LATENT, TinyCodec
from fkv.models.words import WordEncoder
from fkv.sampler import renoise, x0_of
from fkv.transformer.coordinates import input_channels, with_coordinates
from fkv.world.captions import COLOURS, MOTIONS, SHAPES, Scene, caption, loosened, sample_scene
from fkv.world.render import render

from .attention import ChunkTextAttention, TeacherForcedAttention, draw_context
from .data import Clips, genes_of, object_mask, to_pixels
from .rollout import SIGMAS, Draft, Pool

CHUNK_FRAMES = 3
FARTHEST_CHUNK = 340


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
        genes = genes_of(corner)
        scene = sample_scene(rng, two=0.5)
        switch = rng.randrange(1, chunks) if chunks > 1 and rng.random() < 0.3 else chunks
        scenes = [scene] * switch + [change(scene, rng)] * (chunks - switch)
        texts = [loosened(caption(at, rng), rng) for at in (scenes[0], scenes[-1])]
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
    judged = torch.ones(CHUNK_FRAMES * chunks, dtype=torch.bool, device=device)
    if start > 1:
        judged[CHUNK_FRAMES : 2 * CHUNK_FRAMES] = False
    return Clips(latents, 1 + 3 * mask, prompts, torch.stack(corners).to(device), indices, judged[:, None, None, None])


def flow_loss(
    transformer: WanTransformer3DModel, words: WordEncoder, draft: Draft, rng: random.Random, noisy: int
) -> tuple[Tensor, dict[str, float], Tensor]:
    """The weighted error of x0 in the draft's next step, and that of flow in `noisy` - 1 copies of the true clips at random steps.

    Also returns the plain error of x0 per step, `own` ones for the draft, and the x0 that the draft goes on with.
    """
    clips, x0 = draft.clips, draft.clips.latents
    batch, chunks, device = len(x0), len(clips.chunks), x0.device
    rows, cols = x0.shape[-2] // 2, x0.shape[-1] // 2
    positions = [CHUNK_FRAMES * c + i for c in clips.chunks for i in range(CHUNK_FRAMES)]
    table = rope_freqs_cis(positions, rows, cols, transformer.config.attention_head_dim, device)
    past = int(chunks > 1)  # an opening chunk attends to itself alone, and needs no clean copy
    context = draw_context(rng, table, past + noisy, chunks, rows * cols, len(transformer.blocks))
    for block in transformer.blocks:
        block.attn1.processor.context = context
        block.attn2.processor.chunks = chunks
    slight = 0.15 * rng.random() if rng.random() < 0.5 else 0.0
    clean = [renoise(draft.history, torch.randn_like(x0), slight)] * past
    names, sigmas, inputs = [f"own {draft.sigma}"], [draft.sigma], [draft.noisy()]
    for _ in range(noisy - 1):
        sigma = (rng.choice(SIGMAS) if rng.random() < 0.85 else rng.uniform(0.1, 1.0)) if past else 1.0
        names.append(str(sigma) if sigma in SIGMAS else "other"), sigmas.append(sigma)
        inputs.append(clips.noise() if sigma == 1.0 else renoise(x0, torch.randn_like(x0), sigma))
    hidden = with_coordinates(torch.cat(clean + inputs).transpose(1, 2), CHUNK_FRAMES, opening=True)
    time_steps = torch.tensor([0.0] * past + [1000 * s for s in sigmas], device=device).repeat_interleave(batch)
    text = words([prompt for clip in clips.prompts for prompt in clip])
    with torch.autocast(device.type, dtype=torch.bfloat16):
        flow = transformer(hidden, time_steps, text, return_dict=False)[0]
    flow = flow[batch * past :].transpose(1, 2).float().unflatten(0, (noisy, batch))
    weight = clips.weight * clips.judged
    total, errors, made = x0.new_zeros(()), {}, []
    for name, sigma, given, predicted in zip(names, sigmas, inputs, flow):
        made.append(x0_of(given, predicted, sigma))
        squared = (made[-1] - x0).square()
        total = total + (squared * weight).mean() / weight.mean() / (1 if name.startswith("own") else sigma)
        errors[name] = float((squared.detach() * clips.judged).mean() / clips.judged.float().mean())
    return total / noisy, errors, made[0].detach()


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
        num_attention_heads=width // head_dim,
        attention_head_dim=head_dim,
        in_channels=input_channels(channels),
        out_channels=channels,
        text_dim=words.config.dim,
        freq_dim=64,
        ffn_dim=4 * width,
        num_layers=layers,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    for block in transformer.blocks:
        look_around(block.attn1)
    return transformer, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        help="start from these weights (a folder with transformer/ and text_encoder/)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=100.0,
        help="training time of this run; the learning rate falls towards its end",
    )
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument(
        "--openings", type=float, default=0.4, help="share of batches that hold opening chunks alone, the hardest"
    )
    parser.add_argument(
        "--noisy", type=int, default=2, help="noisy copies per step; the first is the generator's own draft"
    )
    parser.add_argument("--pool", type=int, default=24, help="drafts that are under way")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    add_device(parser)
    args = parser.parse_args()
    if not hasattr(torch.optim, "Muon"):
        parser.error(f"training needs PyTorch 2.9 or newer, for its optimizer Muon; this is {torch.__version__}")
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

    def fresh() -> Clips:
        chunks = 1 if rng.random() < args.openings else args.chunks
        return draw_clips(rng, codec, args.clips * args.chunks // chunks, chunks, args.device)

    pool = Pool(args.pool, fresh, rng)
    parameters = [p for module in (transformer, words) for p in module.parameters()]
    with tqdm(
        total=args.minutes,
        initial=spent,
        unit="min",
        mininterval=30,
        bar_format="{l_bar}{bar}| {n:.1f}/{total:.0f} min {postfix}",
    ) as bar:
        while (minutes := spent + (time.time() - began) / 60) < args.minutes:
            rate = args.lr * min(1, (step + 1) / 100) * max(0.03, min(1, (1 - minutes / args.minutes) / 0.5))
            for optimizer in steps:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["pace"]
            draft = pool.draw()
            loss, errors, x0 = flow_loss(transformer, words, draft, rng, args.noisy)
            for optimizer in steps:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in steps:
                optimizer.step()
            draft.advance(x0)
            pool.give_back(draft)
            step += 1
            decay = min(0.998, step / (step + 10))
            with torch.no_grad():
                for slow_module, fast_module in zip(ema, (transformer, words)):
                    for slow, fast in zip(slow_module.parameters(), fast_module.parameters()):
                        slow.lerp_(fast, 1 - decay)
            for name, error in ({"loss": loss.item()} | errors).items():
                smooth[name] = 0.98 * smooth.get(name, error) + 0.02 * error
            if step % 20 == 0:
                bar.n = minutes
                bar.set_postfix_str(f"step {step} " + " ".join(f"{k}:{smooth[k]:.4f}" for k in sorted(smooth)))
                with (args.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": step, "minutes": minutes} | smooth) + "\n")
            if step % 100 == 0:
                save(args.out, transformer, words, ema, steps, step, minutes)
    save(args.out, transformer, words, ema, steps, step, args.minutes)


def save(out: Path, transformer, words, ema, steps, step: int, minutes: float) -> None:
    """Write the resumable state and the averaged weights in diffusers' layout."""
    state = {
        "modules": [m.state_dict() for m in (transformer, words, *ema)],
        "optimizers": [o.state_dict() for o in steps],
        "step": step,
        "minutes": minutes,
    }
    torch.save(state, out / "state.part")
    (out / "state.part").replace(out / "state.pt")
    ema[0].save_pretrained(out / "model" / "transformer")
    ema[1].save_pretrained(out / "model" / "text_encoder")


if __name__ == "__main__":
    main()
