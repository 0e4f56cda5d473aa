"""Train the tiny generator.

python -m fkv.training.generator --codec runs/codec/codec --out runs/generator --minutes 100
python -m fkv.training.generator --stage memory --codec assets/tiny-memory/codec --from assets/tiny --out runs/memory \\
    --minutes 600

All chunks of a clip are trained at once, with the contexts that streaming will meet: history cut as the cache policies
cut it (`history`), a first chunk far in the past, slightly noisy context, prompts that change at a chunk border, and
the generator's own earlier steps and chunks in place of the true ones (`rollout`).

Few steps are enough because noise and data are coupled: genes decide what a caption leaves open, and they are read from
the first pixel of the opening chunk's noise (`genes_of`), which every token of that chunk sees (`coordinates`). So
at sigma = 1 the right answer is one video and not the mean of many, and the noise is still exactly standard normal.
The stage "memory" does the same for every chunk: its first pixel decides the events of the memory world (`story`).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from fkv.commands.model_options import add_device
from fkv.kernels import rope_freqs_cis
from fkv.kernels.rope import axis_dims
from fkv.models.codec import TinyCodec
from fkv.models.words import WordEncoder
from fkv.sampler import renoise, x0_of
from fkv.transformer.coordinates import input_channels, with_coordinates, with_first_pixels
from fkv.world.shots import memory_words

from .attention import ChunkTextAttention, TeacherForcedAttention, draw_context
from .clips import ClipStream, Rendered, encoded, render_clips, render_memory_clips
from .data import Clips
from .history import CHUNK_FRAMES, FULL, MIXED, draw_history
from .muon import Muon
from .precision import PRECISIONS, products_in
from .rollout import Draft, Pool

STAGES = ("world", "memory")
HISTORIES = {"mixed": MIXED, "full": FULL}


def flow_loss(
    transformer: Any,
    words: Any,
    draft: Draft,
    rng: random.Random,
    noisy: int,
    precision: str | None = None,
) -> tuple[Tensor, dict[str, float], Tensor]:
    """The loss of one step: the error of x0 in the draft's next step and in copies of the true clips at random steps.

    Args:
        transformer: The generator, a `WanTransformer3DModel` with the processors of `attention`.
        words: Its text encoder.
        draft: Clips part of the way through the sampler.
        rng: Source of randomness.
        noisy: Number of noisy copies; the first is the draft, the others are true clips at random noise levels.
        precision: See `products_in`.

    Returns:
        The weighted loss, the plain error of x0 per noise level ("own" ones for a draft of the true clips, "two steps"
        for one that learns from four), and the draft's new x0.
    """
    clips = draft.clips
    x0 = clips.latents
    batch = len(x0)
    chunks = len(clips.chunks)
    rows, cols = x0.shape[-2] // 2, x0.shape[-1] // 2
    positions = [CHUNK_FRAMES * chunk + i for chunk in clips.chunks for i in range(CHUNK_FRAMES)]
    table = rope_freqs_cis(positions, rows, cols, transformer.config.attention_head_dim, x0.device)
    past = int(chunks > 1)  # an opening chunk attends to itself alone and needs no clean copy
    history = clips.history or draw_history(rng, clips.chunks)
    context = draw_context(rng, table, past + noisy, history, rows * cols, len(transformer.blocks))
    for block in transformer.blocks:
        block.attn1.processor.context = context
        block.attn2.processor.chunks = chunks
    slight = 0.15 * rng.random() if rng.random() < 0.5 else 0.0
    clean = [renoise(draft.history, torch.randn_like(x0), slight)] * past
    own = "own" if draft.target is x0 else "two steps"
    names = [f"{own} {draft.sigma}"]
    sigmas = [draft.sigma]
    inputs = [draft.noisy()]
    targets = [draft.target, *[x0] * (noisy - 1)]
    for _ in range(noisy - 1):
        sigma = rng.choice(draft.sigmas) if rng.random() < 0.85 else rng.uniform(0.1, 1.0)
        sigma = sigma if past or rng.random() < 0.5 else 1.0
        names.append(str(sigma) if sigma in draft.sigmas else "other")
        sigmas.append(sigma)
        inputs.append(clips.noise() if sigma == 1.0 else renoise(x0, torch.randn_like(x0), sigma))
    events = transformer.config.in_channels == input_channels(x0.shape[2], events=True)
    if events:
        inputs = [with_first_pixels(latents, draft.start, CHUNK_FRAMES) for latents in inputs]
    hidden = with_coordinates(torch.cat(clean + inputs).transpose(1, 2), CHUNK_FRAMES, opening=True, events=events)
    time_steps = torch.tensor([0.0] * past + [1000 * s for s in sigmas], device=x0.device).repeat_interleave(batch)
    with products_in(precision, x0.device):
        text = words([prompt for clip in clips.prompts for prompt in clip])
        flow = transformer(hidden, time_steps, text, return_dict=False)[0]
    flow = flow[batch * past :].transpose(1, 2).float().unflatten(0, (noisy, batch))
    weight = clips.weight * clips.judged
    total = x0.new_zeros(())
    errors: dict[str, float] = {}
    results: list[Tensor] = []
    for name, sigma, latents, predicted, target in zip(names, sigmas, inputs, flow, targets, strict=True):
        results.append(x0_of(latents, predicted, sigma))
        squared = (results[-1] - target).square()
        total = total + (squared * weight).mean() / weight.mean() / (sigma if latents is not inputs[0] else 1)
        errors[name] = float((squared.detach() * clips.judged).mean() / clips.judged.float().mean())
    return total / noisy, errors, results[0].detach()


def optimizers(transformer: Any, words: Any, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else; `pace` multiplies the learning rate of a group.

    Norm weights and biases of self-attention's queries and keys set how sharply a head attends; they learn faster than
    the rest.
    """
    named = [*transformer.named_parameters(), *words.named_parameters()]
    matrices = [p for n, p in named if p.ndim == 2 and n.startswith("blocks.")]
    sharp = [p for n, p in named if ".attn1." in n and ("norm_" in n or n.endswith(("to_q.bias", "to_k.bias")))]
    chosen = {id(p) for p in (*matrices, *sharp)}
    others = [p for _, p in named if id(p) not in chosen]
    groups = [{"params": others, "pace": 1.0}, {"params": sharp, "pace": 8.0}]
    return [
        Muon([{"params": matrices, "pace": 1.0}], lr=lr),
        torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


@torch.no_grad()
def look_around(attn: Any) -> None:
    """Start every other head with attention to the same place in all frames, and all heads with some sharpness.

    A constant in the fastest-turning row and column dimensions of q and k makes their product fall with distance under
    RoPE. Without this start, heads take thousands of steps to find the past at all.
    """
    size: int = attn.inner_dim // attn.heads
    time, rows, _ = axis_dims(size)
    for norm in (attn.norm_q, attn.norm_k):
        torch.nn.init.constant_(norm.weight, 1.6)
    for linear in (attn.to_q, attn.to_k):
        for head in range(1, attn.heads, 2):
            for axis in (time, time + rows):
                linear.bias[head * size + axis] += 3.0
                linear.bias[head * size + axis + 2] += 2.0


def build(width: int, layers: int, head_dim: int, channels: int) -> tuple[WanTransformer3DModel, WordEncoder]:
    """Make a fresh generator and its text encoder.

    Args:
        width: Channels of the hidden states.
        layers: Number of blocks.
        head_dim: Channels per attention head.
        channels: Channels of the latents.
    """
    words = WordEncoder()
    transformer: Any = WanTransformer3DModel(
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


@torch.no_grad()
def with_events(transformer: Any, words: Any) -> tuple[Any, Any]:
    """Extend a model of today's world to the memory world; until it is trained, it generates the same video.

    New input planes start with zero weights, and new words follow the known ones in the vocabulary.
    """
    channels = transformer.config.out_channels
    if transformer.config.in_channels == input_channels(channels, events=True):
        return transformer, words
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    larger: Any = WanTransformer3DModel(**config | {"in_channels": input_channels(channels, events=True)})
    state = transformer.state_dict()
    embedding = torch.zeros_like(larger.patch_embedding.weight)
    embedding[:, : transformer.config.in_channels] = state["patch_embedding.weight"]
    larger.load_state_dict(state | {"patch_embedding.weight": embedding})
    known = list(words.config.vocabulary)
    longer: Any = WordEncoder(
        words.config.dim, words.config.length, [*known, *(word for word in memory_words() if word not in known)]
    )
    rows = longer.embedding.weight.clone()
    rows[: len(known) + 1] = words.embedding.weight
    longer.load_state_dict(words.state_dict() | {"embedding.weight": rows})
    return larger, longer


@dataclass
class Training:
    """A run that can be resumed: the model, its average, its optimizers and how far it is."""

    transformer: Any
    words: Any
    lr: float
    step: int = 0
    minutes: float = 0.0
    smooth: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.ema = deepcopy((self.transformer, self.words))
        self.optimizers = optimizers(self.transformer, self.words, self.lr)

    @property
    def modules(self) -> tuple[Any, ...]:
        """The modules of the state file, in its order."""
        return self.transformer, self.words, *self.ema

    def prepare(self, chunks: int) -> None:
        """Set the attention processors of training."""
        for layer, block in enumerate(self.transformer.blocks):
            block.attn1.set_processor(TeacherForcedAttention(layer))
            block.attn2.set_processor(ChunkTextAttention(chunks))

    def resume(self, file: Path, device: str) -> None:
        """Continue from a state file."""
        state = torch.load(file, weights_only=True, map_location=device)
        for module, saved in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        self.minutes = state["minutes"]

    def save(self, out: Path) -> None:
        """Write the state file and the averaged weights in diffusers' layout."""
        state = {
            "modules": [module.state_dict() for module in self.modules],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "minutes": self.minutes,
        }
        torch.save(state, out / "state.part")
        (out / "state.part").replace(out / "state.pt")
        self.ema[0].save_pretrained(out / "model" / "transformer")
        self.ema[1].save_pretrained(out / "model" / "text_encoder")

    def report(self, out: Path) -> str:
        """Append the smoothed errors to the log, and return them as a line."""
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "minutes": self.minutes} | self.smooth) + "\n")
        return f"step {self.step} " + " ".join(f"{name}:{self.smooth[name]:.4f}" for name in sorted(self.smooth))

    def set_rate(self, minutes: float) -> None:
        """Set the learning rate: it rises over 100 steps, and falls in the second half of the run."""
        falling = max(0.03, min(1.0, (1 - self.minutes / minutes) / 0.5))
        rate = self.lr * min(1.0, (self.step + 1) / 100) * falling
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["pace"]

    def update(self, loss: Tensor, errors: dict[str, float]) -> None:
        """Take one optimizer step and move the average."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for module in (self.transformer, self.words) for p in module.parameters()]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for slow_module, fast_module in zip(self.ema, (self.transformer, self.words), strict=True):
                for slow, fast in zip(slow_module.parameters(), fast_module.parameters(), strict=True):
                    slow.lerp_(fast, 1 - decay)
        for name, error in ({"loss": loss.item()} | errors).items():
            self.seen[name] += 1
            share = max(0.02, 1 / self.seen[name])
            self.smooth[name] = (1 - share) * self.smooth.get(name, 0.0) + share * error


def working_minutes(device: str) -> float:
    """Minutes of work so far: on a CPU those of each of its threads, which neither pause nor other work adds to."""
    seconds = time.process_time() / torch.get_num_threads() if device == "cpu" else time.time()
    return seconds / 60


def train(
    training: Training,
    pool: Pool,
    rng: random.Random,
    out: Path,
    minutes: float,
    noisy: int,
    precision: str | None,
    save_minutes: float,
    device: str,
) -> None:
    """Train until `minutes` of work are spent.

    Args:
        training: The run.
        pool: Where drafts come from.
        rng: Source of randomness.
        out: Folder of the state, the weights and the log.
        minutes: Length of the whole run, earlier parts included.
        noisy: Noisy copies per step.
        precision: See `products_in`.
        save_minutes: Real minutes between two checkpoints.
        device: Where the model is.
    """
    before = training.minutes - working_minutes(device)
    saved = time.time()
    layout = "{l_bar}{bar}| {n:.1f}/{total:.0f} min {postfix}"
    with tqdm(total=minutes, initial=training.minutes, unit="min", mininterval=30, bar_format=layout) as bar:
        while training.minutes < minutes:
            training.set_rate(minutes)
            draft = pool.draw()
            loss, errors, x0 = flow_loss(training.transformer, training.words, draft, rng, noisy, precision)
            training.update(loss, errors)
            pupil = draft.advance(x0)
            pool.give_back(draft, pupil)
            training.minutes = before + working_minutes(device)
            due = time.time() - saved > 60 * save_minutes
            if training.step % 20 == 0 or due:
                bar.n = training.minutes
                bar.set_postfix_str(training.report(out))
            if due:
                training.save(out)
                saved = time.time()
    training.report(out)
    training.save(out)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stage", choices=STAGES, default="world", help="which world to train on (default: world)")
    parser.add_argument("--codec", type=Path, required=True, help="folder of the trained codec")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run there resumes")
    parser.add_argument(
        "--from", dest="origin", type=Path, help="start from the weights in this folder (transformer/, text_encoder/)"
    )
    parser.add_argument(
        "--minutes", type=float, default=100.0, help="minutes of work; the learning rate falls in their second half"
    )
    parser.add_argument("--save-minutes", type=float, default=5.0, help="minutes between checkpoints (default: 5)")
    parser.add_argument("--clips", type=int, default=None, help="clips per step (default: 3; 1 of the memory world)")
    parser.add_argument("--chunks", type=int, default=None, help="chunks per clip (default: 4; 8 of the memory world)")
    parser.add_argument("--openings", type=float, default=None, help="share of batches of opening chunks alone")
    parser.add_argument(
        "--history", choices=HISTORIES, help="caches to train under, with --stage memory (default: mixed)"
    )
    parser.add_argument("--few-steps", type=float, default=0.0, help="share of drafts that two steps learn from")
    parser.add_argument("--noisy", type=int, default=2, help="noisy copies per step; the first is a draft (default: 2)")
    parser.add_argument("--pool", type=int, default=24, help="drafts under way (default: 24)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that render beside the training, for a GPU (default: 0)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of products (default: bf16 where the device multiplies it, else fp32)"
    )
    parser.add_argument("--width", type=int, default=192, help="of a model trained from scratch")
    parser.add_argument("--layers", type=int, default=8, help="of a model trained from scratch")
    parser.add_argument("--lr", type=float, default=None, help="peak learning rate (default: 2e-3; 1e-3 for memory)")
    add_device(parser)
    args = parser.parse_args()
    memory = args.stage == "memory"
    if args.history and not memory:
        parser.error("--history goes with --stage memory; streams of the other world train under one cache")
    defaults = {"clips": 1 if memory else 3, "chunks": 8 if memory else 4, "openings": 0.1 if memory else 0.4}
    for name, value in (defaults | {"lr": 1e-3 if memory else 2e-3}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if memory and args.chunks < 4:
        parser.error("clips of the memory world need at least 4 chunks, to hold a return and what was there before")
    return args


def clip_source(args: argparse.Namespace, seed: int, codec: TinyCodec) -> Callable[[], Clips]:
    """Return a function that draws the clips of one step, some of them openings alone."""
    render: Callable[..., Rendered] = render_clips
    if args.stage == "memory":
        render = partial(render_memory_clips, kinds=HISTORIES[args.history or "mixed"])
    stream = ClipStream(render, codec.config["latent_channels"], args.clips, args.chunks, args.openings, seed)
    context = "spawn" if args.workers else None
    batches = iter(DataLoader(stream, None, num_workers=args.workers, multiprocessing_context=context))
    return lambda: encoded(codec, next(batches), args.device, args.precision)


def main() -> None:
    """Train or resume as the command line says."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    codec = TinyCodec.from_pretrained(args.codec).float().to(args.device).requires_grad_(False)
    if args.origin:
        transformer: Any = WanTransformer3DModel.from_pretrained(args.origin / "transformer", torch_dtype=torch.float32)
        words: Any = WordEncoder.from_pretrained(args.origin / "text_encoder")
    else:
        transformer, words = build(args.width, args.layers, 32, codec.config["latent_channels"])
    if args.stage == "memory":
        transformer, words = with_events(transformer, words)
    training = Training(transformer.to(args.device).train(), words.to(args.device).train(), args.lr)
    training.prepare(args.chunks)
    state_file = args.out / "state.pt"
    if state_file.exists():
        training.resume(state_file, args.device)
    rng = random.Random(training.step + 1)
    torch.manual_seed(training.step + 1)
    pool = Pool(args.pool, clip_source(args, training.step + 1, codec), rng, args.few_steps)
    train(training, pool, rng, args.out, args.minutes, args.noisy, args.precision, args.save_minutes, args.device)


if __name__ == "__main__":
    main()
