"""A model with random weights and the structure of the shipped one, which generates a chunk in a few milliseconds."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel

from fkv.models import tiny
from fkv.models.base import VideoModel
from fkv.models.codec import TinyCodec
from fkv.models.words import WordEncoder
from fkv.roles import HeadRoles
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer


def small_model(layers: int = 3) -> VideoModel:
    """Up to 3 layers of 4 heads, frames of 2 x 6 tokens."""
    torch.manual_seed(0)
    words, codec = WordEncoder(dim=16), TinyCodec(latent_channels=4, width=8, depth=1)
    words.eval()
    transformer = WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=12,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=64,
        num_layers=layers,
    )
    roles = HeadRoles(4, ((0, 1), (1, 2), (0,))[:layers])
    return VideoModel(
        "small",
        CausalTransformer(transformer),
        lambda prompt: words([prompt]).detach(),
        Schedule.even(2),
        (4, 4, 12),
        tiny.StreamingCodec(codec),
        roles,
        hints=tiny.hints,
    )
