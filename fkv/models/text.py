"""Wan's text encoder: UMT5-XXL through transformers, its embeddings kept per prompt, the encoder itself where there is room."""

from __future__ import annotations

import html
import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ftfy
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

KEPT = 32
"""Prompts whose embeddings are kept."""


def clean(prompt: str) -> str:
    """The prompt as Wan's models were trained to read it: mended Unicode, no HTML entities, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt)))).strip()


class TextEncoder:
    """Prompt -> embeddings [1, words, dim]; rows after the last token are zero, and what is beyond `words` tokens is cut.

    home, device : where the encoder waits and where it runs. The same: it stays there. Different: it visits `device` for
    every new prompt and leaves again.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: UMT5EncoderModel,
        max_sequence_length: int = 512,
        home: str = "cpu",
        device: str = "cpu",
    ) -> None:
        self.tokenizer, self.encoder, self.max_sequence_length = (
            tokenizer,
            encoder.eval().requires_grad_(False).to(home),
            max_sequence_length,
        )
        self.home, self.device = home, device
        self._at_home = [(parameter, parameter.data) for parameter in self.encoder.parameters()]
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompt: str) -> Tensor:
        prompt = clean(prompt)
        if prompt not in self._kept:
            self._kept[prompt] = self._encode(prompt)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]

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
        """A sentence for the user when a prompt is longer than the encoder reads."""
        count = len(self.tokenizer(clean(prompt)).input_ids)
        return (
            [f"The prompt has {count} tokens; the first {self.max_sequence_length} are read."]
            if count > self.max_sequence_length
            else []
        )


def load(
    encoder: str | Path, tokenizer: str | Path, max_sequence_length: int = 512, home: str = "cpu", device: str = "cpu"
) -> TextEncoder:
    """The encoder and its tokenizer from their folders, in bfloat16. Raises ValueError that names the one that is missing or damaged."""
    reader = _part("tokenizer", tokenizer, AutoTokenizer)
    model = _part("text encoder", encoder, UMT5EncoderModel, dtype=torch.bfloat16)
    return TextEncoder(reader, model.to(torch.bfloat16), max_sequence_length, home, device)


def _part(name: str, folder: str | Path, kind: type, **options: object) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"the {name} in {folder} is missing or damaged ({reason}); delete it and download it again"
        ) from None
