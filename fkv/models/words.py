"""The tiny model's text encoder: one embedding per known word and one transformer layer that binds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from fkv.world.captions import known_words, words


class WordEncoder(ModelMixin, ConfigMixin):
    """Prompts -> embeddings [batch, length, dim]. Words it does not know are left out, rows after the last are zero."""

    @register_to_config
    def __init__(self, dim: int = 96, length: int = 24, vocabulary: list[str] | None = None) -> None:
        super().__init__()
        vocabulary = vocabulary or list(known_words())
        self.register_to_config(vocabulary=vocabulary)
        self.index = {word: i + 1 for i, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary) + 1, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.5)
        self.layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Word numbers, int64 [batch, length]; 0 is padding. Words beyond `length` are cut."""
        length = self.config.length
        rows = [[self.index[w] for w in words(prompt) if w in self.index][:length] for prompt in prompts]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.position.device)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        tokens = self.tokens(prompts)
        known = (tokens > 0).unsqueeze(-1)
        hidden = (self.embedding(tokens) + self.position) * known
        return self.layer(hidden) * known
