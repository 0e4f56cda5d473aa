"""A model of your own: from a diffusers transformer and a cache policy to a stream in three lines.

The weights here are small and random, so this runs anywhere in seconds. With real weights, load a `WanPipeline`: it
brings a text encoder and a VAE, so `Stream` takes a prompt in place of `text`, and `chunk.video` holds the frames.
"""

import torch
from diffusers import WanTransformer3DModel

import fkv

torch.manual_seed(0)
transformer = WanTransformer3DModel(
    num_attention_heads=4, attention_head_dim=12, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=3
)
embeddings = torch.randn(1, 12, 32)  # [batch, tokens, text_dim]

model = fkv.load(transformer, resolution=(64, 96))
stream = fkv.Stream(model, fkv.policies.parse("sliding-window"), text=embeddings)
chunk = stream.step()

print("latents", tuple(chunk.latents.shape), "cache", chunk.kv_bytes, "bytes")
