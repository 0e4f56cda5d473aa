"""The weights of Wan's transformer under diffusers' names, as far as `CausalTransformer` uses them.

A stand-in for diffusers' `WanTransformer3DModel`, which takes longer to import than the shipped model to load. It has
no `forward`: `fkv.transformer` runs the blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .stored import Config, StoredModel


class WanTransformer(StoredModel):
    """Wan's text-to-video transformer, with queries and keys normed across heads.

    Args:
        patch_size: Latent frames, rows and columns of a patch.
        num_attention_heads: Heads.
        attention_head_dim: Width of a head.
        in_channels: Channels of the latents that go in.
        out_channels: Channels of the flow.
        text_dim: Width of the text embeddings.
        freq_dim: Numbers that a timestep is turned into.
        ffn_dim: Width of the feed-forward layer.
        num_layers: Blocks.
        eps: Of the norms.
        **others: Other settings of diffusers' model, as in its `config.json`.

    Raises:
        ValueError: A setting of `others` asks for another architecture.
    """

    _keep_in_fp32_modules = ("time_embedder", "scale_shift_table", "norm2")

    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        eps: float = 1e-6,
        **others: object,
    ) -> None:
        super().__init__()
        fixed = {"cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "image_dim": None}
        fixed |= {"added_kv_proj_dim": None, "pos_embed_seq_len": None, "rope_max_seq_len": 1024}
        if wrong := [name for name, value in others.items() if name not in fixed or fixed[name] != value]:
            raise ValueError(f"the transformer has {wrong[0]}={others[wrong[0]]}, which is not of Wan's text-to-video")
        self.config = Config(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            eps=eps,
            **fixed,
        )
        dim = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, dim, patch_size, patch_size)
        self.condition_embedder = _Conditions(dim, text_dim, freq_dim)
        self.blocks = nn.ModuleList(_Block(dim, num_attention_heads, ffn_dim, eps) for _ in range(num_layers))
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, dim))


class _Projection(nn.Module):
    """Two layers with an activation between, as of timesteps and texts."""

    def __init__(self, inputs: int, dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, dim)
        self.activation = activation
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class _Conditions(nn.Module):
    """Embeds timesteps and texts."""

    def __init__(self, dim: int, text_dim: int, freq_dim: int) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = _Projection(freq_dim, dim, nn.SiLU())
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = _Projection(text_dim, dim, nn.GELU(approximate="tanh"))

    def forward(self, timestep: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of timesteps, [batch, dim], and what modulates the blocks, [batch, 6 * dim].

        Args:
            timestep: [batch].
            text: Of the type in which they are returned.
        """
        half = self.freq_dim // 2
        powers = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
        angles = timestep[:, None].float() * powers.exp()
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        embedded = self.time_embedder(waves.to(self.time_embedder.linear_1.weight.dtype)).type_as(text)
        return embedded, self.time_proj(F.silu(embedded))


class _Attention(nn.Module):
    """The layers of an attention, with diffusers' names."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.inner_dim = dim
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q, self.norm_k = (nn.RMSNorm(dim, eps) for _ in range(2))


class _UpProjection(nn.Module):
    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, ffn_dim)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_UpProjection(dim, ffn_dim), nn.Identity(), nn.Linear(ffn_dim, dim)])


class _Block(nn.Module):
    """The layers of a block, with diffusers' names."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, eps: float) -> None:
        super().__init__()
        self.attn1 = _Attention(dim, heads, eps)
        self.attn2 = _Attention(dim, heads, eps)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.ffn = _FeedForward(dim, ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, dim))
