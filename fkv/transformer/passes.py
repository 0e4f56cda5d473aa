"""What a pass of one stream needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fkv.cache import KVCache

from .probes import NO_PROBES, Probes


@dataclass(frozen=True)
class TextContext:
    """A prompt as cross-attention reads it: K and V per layer, [batch, heads, text tokens, head_dim] each."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Pass:
    """What a pass of one stream needs.

    Args:
        latents: [batch, frames, C, h, w].
        timestep: 0 to 1000.
        text: The prompt, from `CausalTransformer.prepare_text`.
        cache: The stream's cache.
        freqs_cis: Of the chunk's tokens, from `CausalTransformer.rope`.
        probes: See queries and keys.
    """

    latents: Tensor
    timestep: float
    text: TextContext
    cache: KVCache
    freqs_cis: Tensor
    probes: Probes = NO_PROBES

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for passes that multiply the same weights and may be computed together."""
        return self.timestep, self.cache.order, self.latents.shape, self.text.keys_values[0][0].shape
