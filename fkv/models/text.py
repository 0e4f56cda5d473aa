"""Wan's text encoder: UMT5-XXL through transformers; embeddings are cached per prompt."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from .parts import loading

MAX_PROMPTS = 32  # prompts whose embeddings are cached


def clean(prompt: str) -> str:
    """Return the prompt as Wan's models were trained to read it: mended Unicode, no HTML entities, single spaces."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean  # late: it loads the whole pipeline

    return prompt_clean(prompt)


class TextEncoder:
    """Encodes prompts.

    Args:
        tokenizer: The encoder's tokenizer.
        encoder: The encoder; it is set to evaluation and moved to `home`.
        max_sequence_length: Tokens that are read; the rest of a longer prompt is cut.
        home: Device on which the encoder waits.
        device: Device on which it runs. Where it is another than `home`, the encoder moves there for every new prompt
            and back again.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: UMT5EncoderModel,
        max_sequence_length: int = 512,
        home: str = "cpu",
        device: str = "cpu",
    ) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder.eval().requires_grad_(False).to(home)
        self.max_sequence_length = max_sequence_length
        self.home = home
        self.device = device
        self._at_home = [(parameter, parameter.data) for parameter in self.encoder.parameters()]
        self._cached = lru_cache(MAX_PROMPTS)(self._encode)

    def __call__(self, prompt: str) -> Tensor:
        """Return embeddings [1, max_sequence_length, text_dim]; rows after the last token are zero."""
        return self._cached(clean(prompt))

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(
            [prompt], padding="max_length", max_length=self.max_sequence_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        self.encoder.to(self.device)
        try:
            embeds = self.encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        finally:
            for parameter, data in self._at_home:
                parameter.data = data
            if self.home != self.device and self.device.startswith("cuda"):
                torch.cuda.empty_cache()
        return embeds * tokens.attention_mask[:, :, None].to(embeds.dtype)

    def cut(self, prompt: str) -> list[str]:
        """Return a sentence for the user where a prompt is longer than what is read; else none."""
        count = len(self.tokenizer(clean(prompt)).input_ids)
        if count <= self.max_sequence_length:
            return []
        return [f"The prompt has {count} tokens; the first {self.max_sequence_length} are read."]


def load(
    encoder: str | Path,
    tokenizer: str | Path,
    max_sequence_length: int = 512,
    home: str = "cpu",
    device: str = "cpu",
) -> TextEncoder:
    """Load the encoder, in bfloat16, and its tokenizer from their folders.

    Args:
        encoder: Folder of the encoder.
        tokenizer: Folder of the tokenizer.
        max_sequence_length: As in `TextEncoder`, like `home` and `device`.
        home: See there.
        device: See there.

    Raises:
        ValueError: One of the two is missing or damaged.
    """
    remedy = "delete it and download it again"
    with loading("the tokenizer", tokenizer, remedy):
        reader = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    with loading("the text encoder", encoder, remedy):
        model = UMT5EncoderModel.from_pretrained(encoder, local_files_only=True, dtype=torch.bfloat16)
    return TextEncoder(reader, model.to(torch.bfloat16), max_sequence_length, home, device)
