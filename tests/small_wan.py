"""Small parts of a Wan pipeline with random weights: tokenizer, text encoder, VAE, transformer."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from fkv.models.release import WAN_2_2

WORDS = "a red fox trots through a snowy forest"


def tokenizer() -> PreTrainedTokenizerFast:
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS.split()), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    made = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def umt5() -> UMT5EncoderModel:
    torch.manual_seed(0)
    return UMT5EncoderModel(UMT5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)).eval()


def wan_vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1)


def wan_2_2_vae() -> AutoencoderKLWan:
    """Of the form of Wan 2.2's: 48 channels, residual shortcuts, and 2 x 2 pixels of each output channel."""
    torch.manual_seed(0)
    form = dict(WAN_2_2.vae_arguments) | {"base_dim": 8, "decoder_base_dim": 8}
    scale = {"latents_mean": [0.1] * 48, "latents_std": [1.5] * 48}
    return AutoencoderKLWan(**form, **scale, dim_mult=[1, 2, 2, 2], num_res_blocks=1)


def wan_transformer(**changes: object) -> WanTransformer3DModel:
    """3 layers of 4 heads, for the text encoder and the VAE above."""
    torch.manual_seed(0)
    config = {
        "num_attention_heads": 4,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 32,
        "freq_dim": 32,
        "ffn_dim": 64,
        "num_layers": 3,
    }
    return WanTransformer3DModel(**config | changes)


def wan_pipeline() -> WanPipeline:
    return WanPipeline(tokenizer(), umt5(), wan_vae(), scheduler=None, transformer=wan_transformer())
