"""Training meets what streaming will: the same attention, the same steps, the same noise."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import WanTransformer3DModel

from fkv.cache import KVCache
from fkv.kernels import rope_freqs_cis
from fkv.models.codec import TinyCodec
from fkv.models.words import WordEncoder
from fkv.policies import ChunkState, Full, evict
from fkv.training.attention import ChunkTextAttention, Context, TeacherForcedAttention
from fkv.training.data import Clips, genes_of
from fkv.training.generator import draw_clips, flow_loss, optimizers
from fkv.training.rollout import ROUNDS, SIGMAS, Draft, Pool
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.coordinates import input_channels, with_coordinates
from fkv.world.render import GENES

CHANNELS, WORDS = 16, 16


def transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=input_channels(CHANNELS),
        out_channels=CHANNELS,
        text_dim=WORDS,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    )


def clips(chunks: int = 2, judged: bool = True) -> Clips:
    torch.manual_seed(1)
    latents = torch.randn(1, 3 * chunks, CHANNELS, 4, 8)
    mask = torch.ones(3 * chunks, 1, 1, 1, dtype=torch.bool)
    mask[3:6] = judged
    return Clips(
        latents,
        torch.ones(1, 3 * chunks, 1, 4, 8),
        [["a red ball"] * chunks],
        torch.randn(1, CHANNELS),
        [0, 1][:chunks],
        mask,
    )


@torch.inference_mode()
def test_a_chunk_in_training_sees_what_it_sees_in_a_stream():
    model, given = transformer().eval(), clips()
    text, noisy = torch.randn(1, 5, WORDS), torch.randn(1, 6, CHANNELS, 4, 8)
    streamed, rows, cols, tokens = CausalTransformer(model), 2, 4, 8
    cache = KVCache(streamed.geometry(4, 8, 3, 1), streamed.geometry(4, 8, 3, 1).every_head, 1)
    context = streamed.prepare_text(text)
    expected = []
    for chunk in range(2):
        frames, span = tuple(range(3 * chunk, 3 * chunk + 3)), slice(3 * chunk, 3 * chunk + 3)
        cache.begin(frames)
        table = streamed.rope(frames, rows, cols)
        expected.append(streamed(noisy[:, span], 500.0, context, cache, table))
        streamed(given.latents[:, span], 0.0, context, cache, table)
        evict(Full(), ChunkState(chunk, frames, cache))

    model = transformer().eval()
    every = [torch.arange(0), torch.arange(3 * tokens)]
    for layer, block in enumerate(model.blocks):
        block.attn1.set_processor(TeacherForcedAttention(layer))
        block.attn2.set_processor(ChunkTextAttention(2))
        block.attn1.processor.context = Context(
            rope_freqs_cis(range(6), rows, cols, 12), 2, 2, 3 * tokens, every, every, [False, False]
        )
    hidden = with_coordinates(torch.cat([given.latents, noisy]).transpose(1, 2), 3, opening=True)
    flow = model(hidden, torch.tensor([0.0, 500.0]), text.expand(2, -1, -1), return_dict=False)[0][1:].transpose(1, 2)
    torch.testing.assert_close(flow, torch.cat(expected, 1), atol=1e-5, rtol=1e-4)


def test_genes_are_uniform():
    torch.manual_seed(0)
    drawn = torch.tensor([genes_of(corner) for corner in torch.randn(2000, CHANNELS)])
    assert drawn.shape == (2000, GENES) and 0 <= drawn.min() and drawn.max() < 1
    assert (drawn.mean(0) - 0.5).abs().max() < 0.03 and (drawn.var(0) - 1 / 12).abs().max() < 0.01


def test_draft_goes_through_the_sampler_and_becomes_history():
    given = clips(judged=False)
    draft, made = Draft(given, given.latents), torch.zeros_like(given.latents)
    assert torch.equal(draft.noisy()[:, 0, :, 0, 0], given.corner)
    for sigma in SIGMAS:
        assert draft.sigma == sigma and torch.equal(draft.history, given.latents)
        draft.advance(made)
    assert draft.sigma == SIGMAS[0] and draft.guess is None and draft.rounds == 1
    assert not draft.history[:, :3].any() and torch.equal(draft.history[:, 3:], given.latents[:, 3:])


def test_pool_keeps_drafts_until_their_rounds_are_over():
    pool = Pool(2, clips, random.Random(0))
    seen = []
    for _ in range(200):
        draft = pool.draw()
        draft.advance(torch.zeros_like(draft.clips.latents))
        pool.give_back(draft)
        seen.append(draft)
        assert len(pool.drafts) <= 2
    assert max(draft.rounds for draft in seen) == ROUNDS and sum(draft.rounds == ROUNDS for draft in seen) > 2


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="training needs PyTorch 2.9")
def test_loss_falls_on_one_batch():
    model, words, rng = transformer().train(), WordEncoder(dim=WORDS).train(), random.Random(0)
    for layer, block in enumerate(model.blocks):
        block.attn1.set_processor(TeacherForcedAttention(layer))
        block.attn2.set_processor(ChunkTextAttention(2))
    steps, losses = optimizers(model, words, 3e-3), []
    for _ in range(25):
        given = clips()
        loss, errors, x0 = flow_loss(model, words, Draft(given, given.latents), rng, noisy=2)
        loss.backward()
        for optimizer in steps:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(errors["own 1.0"])
    assert x0.shape == given.latents.shape and losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("chunks", [1, 3])
def test_clips_of_the_world_fit_together(chunks):
    made = draw_clips(random.Random(3), TinyCodec(width=8, depth=1), 2, chunks, "cpu")
    assert made.latents.shape == (2, 3 * chunks, 16, 12, 20) and made.weight.shape == (2, 3 * chunks, 1, 12, 20)
    assert [len(each) for each in made.prompts] == [chunks] * 2 and len(made.chunks) == chunks
    assert made.weight.min() == 1 and made.weight.max() == 4 and made.judged[:3].all()
