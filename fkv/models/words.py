"""The tiny model's text encoder: one embedding per known word and one transformer layer that binds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fkv.world.captions import known_words, words

from .stored import Config, StoredModel


class WordEncoder(StoredModel):
    """Encodes prompts word by word.

    Args:
        dim: Of the embeddings.
        length: Words that are read; the rest of a longer prompt is cut.
        vocabulary: The known words; those of the toy world by default. Other words of a prompt are left out.
    """

    def __init__(self, dim: int = 96, length: int = 24, vocabulary: list[str] | None = None) -> None:
        super().__init__()
        vocabulary = vocabulary or list(known_words())
        self.config = Config(dim=dim, length=length, vocabulary=vocabulary)
        self.index = {word: i + 1 for i, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary) + 1, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.5)
        self.layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Return word numbers, int64 [batch, length]; 0 is padding."""
        length = self.config.length
        rows = [[self.index[word] for word in words(prompt) if word in self.index][:length] for prompt in prompts]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], device=self.position.device)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings [batch, length, dim]; rows after the last word are zero."""
        tokens = self.tokens(prompts)
        known = (tokens > 0).unsqueeze(-1)
        hidden = (self.embedding(tokens) + self.position) * known
        return self.layer(hidden) * known
